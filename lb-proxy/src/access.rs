//! The phase in which it is found out whether a client may ask.

mod basic;
mod external;
mod kept;

use http::{HeaderValue, StatusCode};
use lb_route::{action::Forward, limits::Refused, settings::OverallLimit};

pub(crate) use kept::Kept;

use crate::{answer::Refusal, exchange::Exchange, forward::Extra, upstream::Connect};

/// What a client gets that may ask.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    /// Headers for the backend.
    pub(crate) headers: Extra,
    /// Cookies for the client.
    pub(crate) cookies: Cookies,
}

/// Cookies that the server sets that was asked.
#[derive(Debug, Default)]
pub(crate) struct Cookies {
    /// Values of `Set-Cookie`.
    pub(crate) values: Vec<HeaderValue>,
    /// Whether errors set them too.
    pub(crate) always: bool,
}

/// What the checks have found so far.
struct Checks {
    /// Whether one that passes is enough.
    any: bool,
    passed: Option<Granted>,
    refused: Option<Refusal>,
}

impl Checks {
    /// Whether the others need not be made.
    fn is_decided(&self) -> bool {
        if self.any {
            self.passed.is_some()
        } else {
            self.refused.is_some()
        }
    }

    fn add(&mut self, result: Result<Granted, Refusal>) {
        match result {
            Ok(granted) => self.passed = Some(granted),
            // A client that nobody knows may sign in: that is not forgotten
            // (ngx_http_core_access_phase, `access_code`).
            Err(refused) if refused.status == StatusCode::FORBIDDEN && self.is_unknown() => {}
            Err(refused) => self.refused = Some(refused),
        }
    }

    fn is_unknown(&self) -> bool {
        let refused = self.refused.as_ref();
        refused.is_some_and(|refused| refused.status == StatusCode::UNAUTHORIZED)
    }

    fn result(self) -> Result<Granted, Refusal> {
        match (self.passed, self.refused) {
            (Some(passed), Some(_)) if self.any => Ok(passed),
            (_, Some(refused)) => Err(refused),
            (passed, None) => Ok(passed.unwrap_or_default()),
        }
    }
}

impl<C: Connect> Exchange<C> {
    /// Whether the client may ask.
    ///
    /// # Errors
    /// It may not.
    pub(crate) async fn access(&mut self, forward: &Forward) -> Result<Granted, Refusal> {
        if let Some(limit) = &forward.location.settings.limits.overall {
            self.overall(forward, limit)?;
        }
        self.limits(forward)?;
        let access = &forward.location.settings.access;
        let mut checks = Checks {
            any: access.any,
            passed: None,
            refused: None,
        };
        if forward.source_denied {
            checks.add(Err(StatusCode::FORBIDDEN.into()));
        } else if !access.allow.is_empty() || !access.deny.is_empty() {
            checks.add(Ok(Granted::default()));
        }
        if let Some(basic) = &access.basic
            && !checks.is_decided()
        {
            checks.add(Box::pin(self.basic(forward, basic)).await);
        }
        if let Some(external) = &access.external
            && !checks.is_decided()
        {
            // What is seldom is not to make every request's future large.
            checks.add(Box::pin(self.external(forward, external)).await);
        }
        let result = checks.result();
        result.map_err(|refused| self.to_signin(forward, refused))
    }

    /// How often all proxies together let requests of a key in (`global-rate-limit`). Ingress-nginx
    /// asks this first, in the rewrite phase.
    fn overall(&mut self, forward: &Forward, limit: &OverallLimit) -> Result<(), Refusal> {
        let remote = forward.asked.remote;
        if limit.ignored.iter().any(|net| net.contains(&remote)) {
            return Ok(());
        }
        let record = &self.entry.record;
        let key = limit.key.as_ref();
        let key = key.map(|key| key.fill(&record.context(forward)));
        let key = key.filter(|key| !key.is_empty());
        let key = key.unwrap_or_else(|| remote.to_string());
        let together = &self.visit.proxy.together;
        if together.admit(&forward.location.ingress, limit, key.as_bytes()) {
            return Ok(());
        }
        self.entry.record.limited = Some(Refused::Overall);
        Err(self.options().overall_status.into())
    }

    /// How often the client may ask (`limit-*`).
    fn limits(&mut self, forward: &Forward) -> Result<(), Refusal> {
        let location = &forward.location;
        let limits = &location.settings.limits;
        let proxy = &self.visit.proxy;
        let remote = forward.asked.remote;
        let admitted = proxy
            .limiter
            .admit(&location.uid, limits, remote, proxy.clock());
        match admitted {
            Ok(admitted) => {
                self.entry.admitted = Some(admitted);
                Ok(())
            }
            Err(refused) => {
                self.entry.record.limited = Some(refused);
                let options = self.options();
                Err(match refused {
                    Refused::Requests => options.rate_status.into(),
                    Refused::Connections => options.connections_status.into(),
                    Refused::Overall => options.overall_status.into(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_them_or_any_of_them() {
        let (yes, no) = (true, false);
        // satisfy, results, whether the client may ask (ngx_http_core_access_phase).
        let cases: &[(bool, &[bool], bool)] = &[
            (no, &[], yes),
            (no, &[yes], yes),
            (no, &[no], no),
            (no, &[yes, no], no),
            (no, &[no, yes], no),
            (yes, &[], yes),
            (yes, &[no], no),
            (yes, &[yes, no], yes),
            (yes, &[no, yes], yes),
            (yes, &[no, no, yes], yes),
            (yes, &[no, no], no),
        ];
        for (any, results, expected) in cases {
            let mut checks = Checks {
                any: *any,
                passed: None,
                refused: None,
            };
            for result in *results {
                if !checks.is_decided() {
                    checks.add(match result {
                        true => Ok(Granted::default()),
                        false => Err(StatusCode::FORBIDDEN.into()),
                    });
                }
            }
            assert_eq!(checks.result().is_ok(), *expected, "{any} {results:?}");
        }
    }
}
