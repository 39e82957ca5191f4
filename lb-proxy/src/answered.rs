//! A request when its answer begins, as variables have it: for headers of answers.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;
use lb_route::{
    context::Context,
    request::Head,
    variables::{Named, Values, seconds},
};

use crate::record::Record;

/// A request when its answer begins. What is known only at its end has no value yet.
pub(crate) struct Answered<'r> {
    pub(crate) record: &'r Record,
    pub(crate) context: Context<'r>,
    pub(crate) status: StatusCode,
    /// From its head until now.
    pub(crate) took: Duration,
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
            Named::RequestTime => Some(seconds(self.took).into()),
            Named::UpstreamAddr => self.record.of_attempts(|one| one.address.to_string()),
            Named::UpstreamStatus => self
                .record
                .of_attempts(|one| one.status.as_str().to_owned()),
            _ => self.context.named(name),
        }
    }
}
