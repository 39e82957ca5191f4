//! Copies of requests for another server, whose answers nobody waits for (ngx_http_mirror_module).

use bytes::Bytes;
use http::{HeaderValue, Uri, header::HOST};
use lb_route::{action::Forward, settings::Mirror};

use crate::{
    exchange::Exchange,
    headers,
    upload::Shared,
    upstream::{Connect, Question},
};

impl<C: Connect> Exchange<C> {
    /// Sends a copy of the request, as the client has sent it. It is left out where its body is
    /// too long to be kept, and where too many others are under way: what a mirror does is not to
    /// be felt by clients.
    pub(crate) fn mirror(&self, forward: &Forward, mirror: &Mirror, body: Option<&Shared>) {
        let ingress = &forward.location.ingress;
        let body = body.filter(|_| mirror.body);
        let Some(body) = body.map_or(Some(Bytes::new()), Shared::copy) else {
            return tracing::debug!(%ingress, "a request is not copied: its body is too long");
        };
        let proxy = self.visit.proxy.clone();
        let Ok(place) = proxy.copies.clone().try_acquire_owned() else {
            return tracing::debug!(%ingress, "a request is not copied: too many others are");
        };
        let record = &self.entry.record;
        let url = mirror.url.fill(&record.context(forward));
        let (Ok(uri), Ok(host)) = (url.parse::<Uri>(), HeaderValue::from_str(&mirror.host)) else {
            return tracing::debug!(%ingress, url, "a request is not copied: this is no address");
        };
        let underscores = self.options().client.underscores;
        let mut headers = headers::passed(&record.headers, underscores, 2);
        headers.insert(HOST, host);
        let question = Question {
            body,
            ..Question::to(&uri, record.method.clone(), headers)
        };
        let location = forward.location.clone();
        tokio::spawn(async move {
            let answer = proxy.ask(&uri, &question, &location.settings.upstream);
            match answer.await {
                Ok(answer) => answer.into_body().discard().await,
                Err(error) => {
                    let ingress = &location.ingress;
                    tracing::debug!(%ingress, url, error, "a copy of a request has no answer");
                }
            }
            drop(place);
        });
    }
}
