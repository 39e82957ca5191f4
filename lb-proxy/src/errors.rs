//! Errors that another backend answers (`custom-http-errors`, `default-backend`; nginx.tmpl of
//! ingress-nginx, `CUSTOM_ERRORS`).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, Uri, header::HOST};
use lb_route::{action::Forward, error_headers};

use crate::{
    body::Content,
    choose,
    exchange::Exchange,
    headers,
    upstream::{Connect, Question, Target},
};

impl<C: Connect> Exchange<C> {
    /// The answer, or that of the backend for errors if it is one of those that are asked for;
    /// `ours` if no backend made it.
    pub(crate) async fn intercept(
        &mut self,
        forward: &Forward,
        response: Response<Content<C>>,
        ours: bool,
    ) -> Response<Content<C>> {
        let location = &forward.location;
        let errors = &location.settings.errors;
        let wanted = errors.intercept.contains(&response.status().as_u16());
        if !wanted || (errors.passed_on && !ours) {
            return response;
        }
        // What is seldom is not to make every request's future large.
        match Box::pin(self.ask_for(forward, response.status().as_u16())).await {
            Some(answer) => answer,
            None => response,
        }
    }

    /// What the backend for errors answers.
    async fn ask_for(&self, forward: &Forward, status: u16) -> Option<Response<Content<C>>> {
        let location = &forward.location;
        let proxy = &self.visit.proxy;
        let upstream = proxy.decide.upstream(location.errors.as_ref()?)?;
        let endpoints = choose::endpoints(&upstream, &proxy.names).await;
        let target = Target {
            address: choose::in_turn(&upstream, &endpoints, &[])?,
            h2: false,
            tls: None,
        };
        let question = self.error(forward, status);
        let settings = &location.settings.upstream;
        match proxy.pool.question(target, &question, settings).await {
            Ok(mut answer) => {
                let status = answer.status();
                headers::clean(answer.headers_mut(), status);
                Some(answer.map(|body| Content::Download(Box::new(body))))
            }
            Err(failed) => {
                let upstream = &upstream.name;
                tracing::warn!(%upstream, what = ?failed.what, "the backend for errors does not answer");
                None
            }
        }
    }

    fn error(&self, forward: &Forward, status: u16) -> Question {
        let record = &self.entry.record;
        let underscores = self.options().client.underscores;
        let mut headers = headers::passed(&record.headers, underscores, 16);
        let told = error_headers(status, &record.context(forward));
        for (name, value) in told {
            headers::set(&mut headers, &name, value);
        }
        let remote = forward.asked.remote.to_string();
        let more = [
            (HeaderName::from_static("x-forwarded-for"), &remote),
            (HOST, &forward.asked.host),
        ];
        for (name, value) in more {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        record.pass_trace_on(&mut headers, None);
        let head = record.method == Method::HEAD;
        // `rewrite (.*) / break` keeps the query.
        let query = record.uri.query().map(|query| format!("/?{query}"));
        let uri = query.and_then(|uri| uri.parse().ok());
        Question {
            method: if head { Method::HEAD } else { Method::GET },
            uri: uri.unwrap_or(Uri::from_static("/")),
            headers,
            body: Bytes::new(),
        }
    }
}
