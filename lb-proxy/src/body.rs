//! The body of an answer, on its way to a client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::{
    compress::Compress,
    pace::Pace,
    record::Entry,
    upstream::{Broken, Connect, Download, Parts},
};

/// A body; its end is the end of its request.
pub(crate) struct Body<C: Connect> {
    content: Content<C>,
    compress: Option<Box<Compress>>,
    entry: Option<Box<Entry>>,
    pace: Option<Box<Pace>>,
}

/// What is in it.
pub(crate) enum Content<C: Connect> {
    /// Nothing.
    Empty,
    /// This.
    Full(Bytes),
    /// What an endpoint sends.
    Download(Box<Download<C>>),
    /// Another protocol, which may be silent for so long.
    Switched(Parts<C::Io>, Duration),
}

impl<C: Connect> Content<C> {
    /// How many bytes it has.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Switched(..) => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Download(download) => download.size_hint(),
        }
    }
}

impl<C: Connect> Body<C> {
    /// With the record that ends with it, compressed perhaps.
    pub(crate) fn new(
        content: Content<C>,
        entry: Option<Box<Entry>>,
        compress: Option<Box<Compress>>,
    ) -> Self {
        let location = entry
            .as_ref()
            .and_then(|entry| entry.record.location.as_ref());
        let pace = location.and_then(|location| Pace::new(&location.settings.limits));
        Self {
            content,
            compress,
            entry,
            pace: pace.map(Box::new),
        }
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.content {
            Content::Empty | Content::Switched(..) => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Download(download) => Pin::new(&mut **download).poll_frame(cx),
        }
    }

    /// What comes, compressed if it is to be.
    fn poll_compressed(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(mut compress) = self.compress.take() else {
            return self.poll_content(cx);
        };
        let frame = compress.poll(|| self.poll_content(cx));
        self.compress = Some(compress);
        frame
    }

    /// What comes, at the pace of the answer.
    fn poll_paced(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            let Some(pace) = &mut self.pace else {
                return self.poll_compressed(cx);
            };
            if let Some(piece) = ready!(pace.poll(cx)) {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let frame = match ready!(self.poll_compressed(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match (frame.into_data(), &mut self.pace) {
                (Ok(bytes), Some(pace)) => pace.take(bytes),
                (Ok(bytes), None) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                (Err(trailers), _) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }

    /// Bytes that came, and wait.
    fn waiting(&self) -> u64 {
        self.pace.as_ref().map_or(0, |pace| pace.waiting())
    }
}

impl<C: Connect> HttpBody for Body<C> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let frame = this.poll_paced(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(entry)) = (&frame, &mut this.entry) {
            entry.sends(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        if self.waiting() > 0 {
            return false;
        }
        if let Some(compress) = &self.compress {
            return compress.is_over();
        }
        match &self.content {
            Content::Empty | Content::Switched(..) => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Download(download) => download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.compress.is_some() {
            return SizeHint::default();
        }
        let hint = self.content.size_hint();
        match hint.exact() {
            Some(bytes) => SizeHint::with_exact(bytes + self.waiting()),
            None => hint,
        }
    }
}

impl<C: Connect> Unpin for Body<C> {}
