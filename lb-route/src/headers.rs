//! Headers of the ConfigMaps that settings and Ingresses name.

use http::{HeaderName, HeaderValue};

use crate::variables::{Template, Values};

/// Names, and what is sent as each.
pub type Headers = Vec<(HeaderName, Value)>;

/// The value of a header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// The same for every request.
    Fixed(HeaderValue),
    /// With variables.
    Filled(Template),
}

impl Value {
    /// Reads it, with variables.
    ///
    /// # Errors
    /// It is no value of a header, or has a variable that there is none of: why.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value = literal(bytes)?;
        // What is no text has no names in it.
        let template = value.to_str().ok().map(Template::parse).transpose();
        Ok(match template.map_err(|unknown| unknown.to_string())? {
            Some(template) if template.has_variables() => Self::Filled(template),
            _ => Self::Fixed(value),
        })
    }

    /// What is sent; `None` where that is nothing, or nothing that a header can have: then the
    /// header is taken away (`ngx_http_proxy_create_request`, and `more_set_headers`).
    pub fn fill(&self, values: &impl Values) -> Option<HeaderValue> {
        let value = match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Filled(template) => HeaderValue::try_from(template.fill(values)).ok(),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// Reads a value as it is.
///
/// # Errors
/// It is no value of a header: why.
pub(crate) fn literal(bytes: &[u8]) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_bytes(bytes);
    value.map_err(|_| "it is no value of a header".to_owned())
}
