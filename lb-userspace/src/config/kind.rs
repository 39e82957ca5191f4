//! What the value of a field may be, in a file and as a flag. Values are kept as
//! JSON, durations as Go prints them.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::period;

/// The type of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A string.
    Text,
    /// A truth value.
    Bool,
    /// A number of 32 bits.
    Int,
    /// A number with a fraction.
    Float,
    /// A duration, as a string.
    Period,
    /// A duration, as a string or a number of nanoseconds.
    PeriodOrNanos,
    /// A list of strings.
    List,
    /// Names with truth values.
    Gates,
    /// An IP address.
    Ip,
    /// An IP address, with or without a port.
    IpPort,
    /// Patterns of file names with a verbosity.
    Vmodule,
    /// A size, as a string such as `4Mi` or a number.
    Quantity,
}

impl Kind {
    /// Takes the value of a file. Of addresses only the type counts here, as
    /// with kube-proxy, which checks the whole configuration at the end.
    ///
    /// # Errors
    /// The value has another type.
    pub fn decode(self, value: &Value) -> Result<Value, String> {
        let wrong = |what: &str| Err(format!("must be {what}, not {value}"));
        match self {
            Self::Text | Self::Ip | Self::IpPort if value.is_string() => Ok(value.clone()),
            Self::Text | Self::Ip | Self::IpPort => wrong("a string"),
            Self::Bool if value.is_boolean() => Ok(value.clone()),
            Self::Bool => wrong("true or false"),
            Self::Int => match whole(value).map(i32::try_from) {
                Some(Ok(number)) => Ok(number.into()),
                _ => wrong("a whole number of 32 bits"),
            },
            Self::Float if value.is_number() => Ok(value.clone()),
            Self::Float => wrong("a number"),
            Self::PeriodOrNanos if value.is_i64() => Ok(value.clone()),
            Self::Period | Self::PeriodOrNanos => match value.as_str() {
                Some(text) => Ok(period::format(period::parse(text)?).into()),
                None => wrong("a duration such as \"30s\""),
            },
            Self::List => match value.as_array() {
                Some(items) if items.iter().all(Value::is_string) => Ok(value.clone()),
                _ => wrong("a list of strings"),
            },
            Self::Gates => match value.as_object() {
                Some(gates) if gates.values().all(|g| g.is_boolean() || g.is_null()) => {
                    let gates = gates.iter();
                    let gate = |(name, is): (&String, &Value)| (name.clone(), (*is == true).into());
                    Ok(Value::Object(gates.map(gate).collect()))
                }
                _ => wrong("names with true or false"),
            },
            Self::Vmodule => match value.as_array() {
                Some(items) if items.iter().all(is_pattern) => Ok(value.clone()),
                _ => wrong("a list of filePattern and verbosity"),
            },
            Self::Quantity if value.is_string() || value.is_number() => Ok(value.clone()),
            Self::Quantity => wrong("a size such as \"4Mi\""),
        }
    }

    /// Reads the text of a flag, as pflag does.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text | Self::Quantity => Ok(text.into()),
            Self::Bool => match text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true.into()),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false.into()),
                _ => Err(format!("{text:?} is neither true nor false")),
            },
            Self::Int => match text.parse::<i32>() {
                Ok(number) => Ok(number.into()),
                Err(_) => Err(format!("{text:?} is not a whole number of 32 bits")),
            },
            Self::Float => match text.parse::<f64>() {
                Ok(number) if number.fract() == 0.0 => Ok((number as i64).into()),
                Ok(number) if number.is_finite() => Ok(number.into()),
                _ => Err(format!("{text:?} is not a number")),
            },
            Self::Period | Self::PeriodOrNanos => Ok(period::format(period::parse(text)?).into()),
            Self::List if text.is_empty() => Ok(Value::Null),
            Self::List => Ok(text.split(',').collect::<Vec<_>>().into()),
            Self::Gates => gates(text),
            // An empty address leaves the default, as with kube-proxy.
            Self::Ip | Self::IpPort if text.is_empty() => Ok(Value::Null),
            Self::Ip => match ip(text) {
                Some(_) => Ok(text.into()),
                None => Err(format!("{text:?} is not an IP address")),
            },
            Self::IpPort => match ip(text).is_some() || ip_port(text).is_ok() {
                true => Ok(text.into()),
                false => Err(format!("{text:?} is neither IP nor IP:PORT")),
            },
            Self::Vmodule => patterns(text),
        }
    }
}

/// Whether Go would call it the zero value of its type.
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0s",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// A number without a fraction, however it is written.
fn whole(value: &Value) -> Option<i64> {
    let fraction = value
        .as_f64()
        .filter(|f| f.fract() == 0.0 && f.abs() < 1e15);
    value.as_i64().or(fraction.map(|f| f as i64))
}

fn is_pattern(item: &Value) -> bool {
    let fields = item.as_object();
    fields.is_some_and(|f| {
        f.iter().all(|(name, value)| match name.as_str() {
            "filePattern" => value.is_string(),
            "verbosity" => value.is_u64(),
            _ => false,
        })
    })
}

fn gates(text: &str) -> Result<Value, String> {
    let mut gates = Map::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair:?} is not NAME=true or NAME=false"))?;
        gates.insert(name.trim().to_owned(), Kind::Bool.parse(value.trim())?);
    }
    Ok(Value::Object(gates))
}

fn patterns(text: &str) -> Result<Value, String> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    let items = pairs.map(|pair| {
        let bad = || format!("{pair:?} is not PATTERN=N");
        let (pattern, level) = pair.split_once('=').ok_or_else(bad)?;
        let level: u32 = level.parse().map_err(|_| bad())?;
        Ok(json!({"filePattern": pattern, "verbosity": level}))
    });
    items.collect::<Result<Vec<_>, _>>().map(Value::from)
}

/// Reads an address as Go's `ParseIPSloppy`: leading zeros of IPv4 are decimal.
pub fn ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let octets = text.split('.').map(|octet| {
        let digits = octet.len() <= 3 && octet.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| octet.parse::<u8>().ok()).flatten()
    });
    let octets: Vec<u8> = octets.collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
}

/// Splits `IP:PORT` or `[IPv6]:PORT`; the port is not 0.
///
/// # Errors
/// It is neither.
pub fn ip_port(text: &str) -> Result<(IpAddr, u16), String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("{text:?} must be IP:PORT"))?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err(format!("{text:?} must be IP:PORT; IPv6 stands in brackets"));
    }
    let host = bare.unwrap_or(host);
    let ip = ip(host).ok_or_else(|| format!("{host:?} must be a valid IP"))?;
    match port.parse() {
        Ok(port @ 1..) => Ok((ip, port)),
        _ => Err(format!("{port:?} must be a valid port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_flags_give_the_same_values() {
        for (kind, file, flag) in [
            (Kind::Bool, json!(true), "T"),
            (Kind::Int, json!(-999), "-999"),
            (Kind::Float, json!(5), "5.0"),
            (Kind::Period, json!("15m"), "900s"),
            (Kind::PeriodOrNanos, json!("5000ms"), "5s"),
            (Kind::List, json!(["a", "b"]), "a,b"),
            (Kind::Gates, json!({"A": true, "B": false}), "A=true,B=0"),
            (
                Kind::Vmodule,
                json!([{"filePattern": "gc*", "verbosity": 4}]),
                "gc*=4",
            ),
            (Kind::IpPort, json!("[::]:10256"), "[::]:10256"),
        ] {
            assert_eq!(kind.decode(&file), kind.parse(flag), "{kind:?}");
        }
    }

    #[test]
    fn values_of_another_type_are_refused() {
        for (kind, file, flag) in [
            (Kind::Bool, json!("true"), "yes"),
            (Kind::Int, json!(3_000_000_000_u64), "3000000000"),
            (Kind::Float, json!("5"), "five"),
            (Kind::Period, json!(5), "5"),
            (Kind::Gates, json!({"A": "true"}), "A"),
            (Kind::Vmodule, json!([{"filePattern": 1}]), "a"),
        ] {
            let error = kind.decode(&file).unwrap_err();
            assert!(!error.is_empty());
            assert!(kind.parse(flag).is_err(), "{kind:?}");
        }
        for bad in [
            "10.0.0.1.2",
            "::g",
            "10.0.0.256:80",
            ":80",
            "[::1]",
            "1.2.3.4:0",
        ] {
            assert!(Kind::IpPort.parse(bad).is_err(), "{bad}");
        }
        assert_eq!(ip("010.1.02.3"), "10.1.2.3".parse().ok());
    }
}
