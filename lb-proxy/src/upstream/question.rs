//! Requests of the proxy's own.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use lb_route::settings::Forwarding;

use crate::{
    upload::Upload,
    upstream::{Connect, Download, Failed, How, Outgoing, Pool, Reply, Target, What},
};

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Method.
    pub(crate) method: Method,
    /// Target.
    pub(crate) uri: Uri,
    /// Headers, that of the host among them.
    pub(crate) headers: HeaderMap,
    /// Body, if it has bytes.
    pub(crate) body: Bytes,
}

impl Question {
    /// For a server by its address, without a body.
    pub(crate) fn to(uri: &Uri, method: Method, headers: HeaderMap) -> Self {
        let path = uri.path_and_query().cloned();
        Self {
            method,
            uri: path.map_or(Uri::from_static("/"), Uri::from),
            headers,
            body: Bytes::new(),
        }
    }

    fn outgoing(&self, settings: &Forwarding) -> Box<Outgoing> {
        let mut request = Request::new(Upload::Whole(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        Box::new(Outgoing {
            request,
            body: None,
            send_timeout: settings.send_timeout,
            read_timeout: settings.read_timeout,
        })
    }
}

impl<C: Connect> Pool<C> {
    /// Asks by HTTP/1, with the timeouts of a path. Once more by a fresh connection, if one that
    /// waited turns out to be closed.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn question(
        self: &Arc<Self>,
        target: Target<C::Tls>,
        question: &Question,
        settings: &Forwarding,
    ) -> Result<Response<Download<C>>, Failed> {
        let mut how = How {
            connect_timeout: settings.connect_timeout,
            fresh: false,
            connected: None,
        };
        let first = self
            .ask(target.clone(), question.outgoing(settings), &mut how)
            .await;
        let reply = match first {
            Err(failed) if failed.reused && failed.what == What::Error => {
                how.fresh = true;
                self.ask(target, question.outgoing(settings), &mut how)
                    .await
            }
            other => other,
        };
        match reply? {
            Reply::Answer(answer) => Ok(answer),
            Reply::Switched(..) => Err(Failed {
                what: What::Invalid,
                sent: true,
                reused: false,
            }),
        }
    }
}
