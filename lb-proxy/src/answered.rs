//! A request when its answer begins, as variables have it: for headers of answers.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;
use lb_route::{
    context::Context,
    request::Head,
    variables::{Named, Values},
};

use crate::record::{Attempt, Record};

/// A request when its answer begins. What is known only at its end has no value yet.
pub(crate) struct Answered<'r> {
    pub(crate) record: &'r Record,
    pub(crate) context: Context<'r>,
    pub(crate) status: StatusCode,
    /// From its head until now.
    pub(crate) took: Duration,
}

impl Answered<'_> {
    /// One value for each attempt (ngx_http_upstream_module, "Embedded Variables").
    fn attempts(&self, value: impl Fn(&Attempt) -> String) -> Option<Cow<'_, str>> {
        let values: Vec<_> = self.record.attempts.iter().map(value).collect();
        (!values.is_empty()).then(|| values.join(", ").into())
    }
}

impl Values for Answered<'_> {
    fn head(&self) -> Head<'_> {
        self.context.head
    }

    fn group(&self, number: u8) -> &[u8] {
        self.context.group(number)
    }

    fn named(&self, name: Named) -> Option<Cow<'_, str>> {
        match name {
            Named::Status => Some(self.status.as_str().into()),
            Named::RequestTime => {
                let (seconds, millis) = (self.took.as_secs(), self.took.subsec_millis());
                Some(format!("{seconds}.{millis:03}").into())
            }
            Named::UpstreamAddr => self.attempts(|one| one.address.to_string()),
            Named::UpstreamStatus => self.attempts(|one| one.status.as_str().to_owned()),
            _ => self.context.named(name),
        }
    }
}
