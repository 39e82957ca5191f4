//! Another server is asked whether a client may ask (`auth-url`): with the head of its request, and
//! without the body (nginx.tmpl of ingress-nginx, the location of an `$authPath`).

use std::sync::Arc;

use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode, Uri,
    header::{HOST, LOCATION, SET_COOKIE, WWW_AUTHENTICATE},
    response::Parts,
};
use lb_route::{action::Forward, context::Context, settings::ExternalAuth, variables::escaped};
use tokio::time::Instant;

use crate::{
    access::{Cookies, Granted, kept},
    answer::Refusal,
    exchange::Exchange,
    headers,
    record::Asked,
    upstream::{Connect, Download, Question},
};

impl<C: Connect> Exchange<C> {
    /// Whether the server lets the client ask.
    ///
    /// # Errors
    /// It does not, or does not say so.
    pub(super) async fn external(
        &mut self,
        forward: &Forward,
        settings: &ExternalAuth,
    ) -> Result<Granted, Refusal> {
        let answer = match self.answer(forward, settings).await {
            Ok(answer) => answer,
            Err(error) => {
                let ingress = &forward.location.ingress;
                tracing::warn!(%ingress, %error, "the server of auth-url does not answer");
                return Err(StatusCode::INTERNAL_SERVER_ERROR.into());
            }
        };
        if !answer.status.is_success() {
            return Err(refusal(settings, &answer));
        }
        let wanted = settings.response_headers.iter();
        let found = wanted.map(|name| (name.clone(), answer.headers.get(name).cloned()));
        Ok(Granted {
            headers: found.collect(),
            cookies: Cookies {
                values: answer.headers.get_all(SET_COOKIE).iter().cloned().collect(),
                always: settings.always_set_cookie,
            },
        })
    }

    /// Leads a client that nobody knows to where it signs in, whoever asked for it: `error_page
    /// 401` is the location's (nginx.tmpl), and catches that of `auth_basic` too.
    pub(super) fn to_signin(&self, forward: &Forward, refused: Refusal) -> Refusal {
        let settings = forward.location.settings.access.external.as_ref();
        let is_unknown = refused.status == StatusCode::UNAUTHORIZED;
        let Some(settings) = settings.filter(|_| is_unknown) else {
            return refused;
        };
        let context = self.entry.record.context(forward);
        let Some(location) = signin(settings, &context) else {
            return refused;
        };
        let mut headers = refused.headers;
        headers.retain(|(name, _)| *name == SET_COOKIE);
        headers.push((LOCATION, location));
        Refusal {
            status: StatusCode::FOUND,
            headers,
        }
    }

    /// What the server says, or has said to one that is alike. A request with an empty key is like
    /// no other: ingress-nginx would take all clients who say nothing of who they are for one.
    async fn answer(
        &mut self,
        forward: &Forward,
        settings: &ExternalAuth,
    ) -> Result<Arc<Parts>, String> {
        let kept = settings.cache.as_ref().and_then(|cache| {
            let alike = cache.key.fill(&self.entry.record.context(forward));
            let key = || kept::key(&forward.location, settings, &alike);
            (!alike.is_empty()).then(|| (cache, key()))
        });
        let found = kept
            .as_ref()
            .and_then(|(_, key)| self.visit.proxy.kept.find(key));
        if let Some(answer) = found {
            return Ok(answer);
        }
        let (answer, body) = self.ask_server(forward, settings).await?.into_parts();
        body.discard().await;
        let answer = Arc::new(answer);
        if let Some((cache, key)) = kept {
            self.visit.proxy.kept.keep(key, cache, &answer);
        }
        Ok(answer)
    }

    async fn ask_server(
        &mut self,
        forward: &Forward,
        settings: &ExternalAuth,
    ) -> Result<Response<Download<C>>, String> {
        let record = &self.entry.record;
        let context = record.context(forward);
        let url = settings.url.fill(&context);
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let mut question = self.question(forward, settings, &uri, &context);
        let span = record.next_span();
        record.pass_trace_on(&mut question.headers, span);
        let begun = Instant::now();
        let patience = &forward.location.settings.upstream;
        let answer = self.visit.proxy.ask(&uri, &question, patience).await;
        let since = self.entry.until(begun);
        if let Some((span, trace)) = span.zip(self.entry.record.trace.as_mut()) {
            trace.questions.push(Asked {
                span,
                method: question.method,
                url: url.clone(),
                status: answer.as_ref().ok().map(Response::status),
                begun: since,
                took: begun.elapsed(),
            });
        }
        answer.map_err(|error| format!("{url}: {error}"))
    }

    fn question(
        &self,
        forward: &Forward,
        settings: &ExternalAuth,
        uri: &Uri,
        context: &Context<'_>,
    ) -> Question {
        let record = &self.entry.record;
        let underscores = self.options().client.underscores;
        let mut headers = headers::passed(&record.headers, underscores, 16);
        headers.remove("x-forwarded-proto");
        let target = record.head().target();
        let host = record.head().authority().unwrap_or_default();
        let scheme = if record.client.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let asked = format!("{scheme}://{host}{target}");
        let remote = forward.asked.remote.to_string();
        let redirect = settings.request_redirect.as_ref();
        let redirect = redirect.map_or_else(|| target.to_owned(), |to| to.fill(context));
        let set: [(&str, &str); 7] = [
            ("x-request-id", &forward.asked.request_id),
            ("x-original-url", &asked),
            ("x-original-method", record.method.as_str()),
            ("x-sent-from", "nginx-ingress-controller"),
            ("x-real-ip", &remote),
            ("x-forwarded-for", chain(forward).unwrap_or(&remote)),
            ("x-auth-request-redirect", &redirect),
        ];
        let with_method: &[(&str, &str)] = match settings.method {
            Some(_) => &[
                ("x-original-uri", target),
                ("x-scheme", &forward.asked.scheme),
            ],
            None => &[],
        };
        for (name, value) in set.iter().chain(with_method) {
            // What came in a header, or in a target, can stand in one; the names are valid.
            if let (Ok(name), Ok(value)) =
                (name.parse::<HeaderName>(), HeaderValue::from_str(value))
            {
                headers.insert(name, value);
            }
        }
        for (name, value) in &forward.location.auth_headers {
            headers::set(&mut headers, name, value.fill(context));
        }
        if let Ok(host) = HeaderValue::from_str(&settings.host) {
            headers.insert(HOST, host);
        }
        let method = settings.method.clone().unwrap_or(Method::GET);
        Question::to(uri, method, headers)
    }
}

/// `X-Forwarded-For`, as the backend gets it.
fn chain(forward: &Forward) -> Option<&str> {
    let mut headers = forward.headers.iter();
    let (_, value) = headers.find(|(name, _)| *name == "x-forwarded-for")?;
    value.as_ref()?.to_str().ok()
}

/// What a client gets that may not ask. Other answers of the server than 401 and 403 are errors
/// (`ngx_http_auth_request_handler`).
fn refusal(settings: &ExternalAuth, answer: &Parts) -> Refusal {
    let status = answer.status;
    let of = |name: HeaderName| {
        let values = answer.headers.get_all(&name).iter();
        let pairs = values.map(|value| (name.clone(), value.clone()));
        pairs.collect::<Vec<_>>()
    };
    if status == StatusCode::UNAUTHORIZED {
        let mut headers = of(WWW_AUTHENTICATE);
        if settings.always_set_cookie || settings.signin.is_some() {
            headers.extend(of(SET_COOKIE));
        }
        return Refusal { status, headers };
    }
    if status == StatusCode::FORBIDDEN {
        let headers = if settings.always_set_cookie {
            of(SET_COOKIE)
        } else {
            Vec::new()
        };
        return Refusal { status, headers };
    }
    StatusCode::INTERNAL_SERVER_ERROR.into()
}

/// Where a client signs in, with what it asked for (`buildAuthSignURL`).
fn signin(settings: &ExternalAuth, context: &Context<'_>) -> Option<HeaderValue> {
    let template = settings.signin.as_ref()?;
    let mut url = template.fill(context);
    let parameter = &settings.signin_redirect_param;
    let query = url.split_once('?').map(|(_, query)| query);
    let there = query.is_some_and(|query| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.any(|(name, value)| name == parameter && !value.is_empty())
    });
    if !there {
        let joint = if query.is_some() { '&' } else { '?' };
        let scheme = &context.asked.scheme;
        let host = context.head.authority().unwrap_or_default();
        let target = escaped(context.head.target());
        url.push_str(&format!("{joint}{parameter}={scheme}://{host}{target}"));
    }
    HeaderValue::from_str(&url).ok()
}
