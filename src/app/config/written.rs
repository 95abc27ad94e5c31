//! Values that an operator writes as text: one trait, and one field type for all of them.

use std::{
    borrow::Cow,
    fmt,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    address::{AdminAddress, EndpointUrl, parse_admin, parse_socket},
    amounts::{Size, Span},
    moment::Moment,
    settings::Rate,
    store_url::StoreUrl,
};
use crate::{
    decisions::ramp::{Matcher, Part},
    words::kid::Kid,
};

/// A type with one spelling as text. [`Written::FORMAT`] names it in the schema, and there its
/// description and examples (`reference::expectation`) are found.
pub trait Written: Sized {
    const FORMAT: &'static str;

    fn read(text: &str) -> Option<Self>;

    fn write(&self) -> String;
}

/// A field of the raw configuration that holds a [`Written`] value.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Text<T>(pub T);

impl<T: Written> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.write())
    }
}

impl<'de, T: Written> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<T: Written> de::Visitor<'_> for Reader<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::FORMAT)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<T>, E> {
                T::read(text).map(Text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Reader(PhantomData))
    }
}

impl<T: Written> JsonSchema for Text<T> {
    fn schema_name() -> Cow<'static, str> {
        T::FORMAT.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "string", "format": T::FORMAT });
        if T::read("").is_none() {
            schema.insert("minLength".to_owned(), 1.into());
        }
        schema
    }
}

/// `""` is none.
impl<T: Written> Written for Option<T> {
    const FORMAT: &'static str = T::FORMAT;

    fn read(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::read(text).map(Some) }
    }

    fn write(&self) -> String {
        self.as_ref().map(T::write).unwrap_or_default()
    }
}

/// The types whose spelling is already written elsewhere: format, reader, writer.
macro_rules! written {
    ($($type:ty, $format:literal, $read:expr, $write:expr;)*) => {$(
        impl Written for $type {
            const FORMAT: &'static str = $format;

            fn read(text: &str) -> Option<Self> {
                ($read)(text)
            }

            fn write(&self) -> String {
                ($write)(self)
            }
        }
    )*};
}

written! {
    SocketAddr, "address", parse_socket, SocketAddr::to_string;
    AdminAddress, "address or unix socket", parse_admin, AdminAddress::to_string;
    EndpointUrl, "url", |text: &str| text.parse().ok(), EndpointUrl::to_string;
    IpNet, "network", network, IpNet::to_string;
    Kid, "key id", Kid::parse, Kid::to_string;
    StoreUrl, "store", |text: &str| text.parse().ok(), StoreUrl::to_string;
    Matcher, "traffic", Matcher::parse, Matcher::to_string;
    Part, "part", Part::parse, Part::to_string;
}

/// Is `text` written as this format asks? A format that isn't known takes none.
pub fn reads(format: &str, text: &str) -> bool {
    match format {
        Span::FORMAT => Span::read(text).is_some(),
        Size::FORMAT => Size::read(text).is_some(),
        Rate::FORMAT => Rate::read(text).is_some(),
        SocketAddr::FORMAT => SocketAddr::read(text).is_some(),
        AdminAddress::FORMAT => AdminAddress::read(text).is_some(),
        EndpointUrl::FORMAT => EndpointUrl::read(text).is_some(),
        IpNet::FORMAT => IpNet::read(text).is_some(),
        Kid::FORMAT => Kid::read(text).is_some(),
        StoreUrl::FORMAT => StoreUrl::read(text).is_some(),
        Moment::FORMAT => Moment::read(text).is_some(),
        Matcher::FORMAT => Matcher::read(text).is_some(),
        Part::FORMAT => Part::read(text).is_some(),
        _ => false,
    }
}

/// `10.0.0.0/8`, or one address.
fn network(text: &str) -> Option<IpNet> {
    let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().map(|network| network.trunc()).or_else(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_its_own_network() {
        assert_eq!(IpNet::read("10.1.2.3/8").map(|n| n.write()).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(IpNet::read("::1").map(|n| n.write()).as_deref(), Some("::1/128"));
        assert_eq!(IpNet::read("localhost").map(|n| n.write()), None);
    }

    #[test]
    fn empty_is_none_where_none_is_allowed() {
        assert_eq!(Option::<EndpointUrl>::read(""), Some(None));
        assert!(EndpointUrl::read("").is_none());
    }
}
