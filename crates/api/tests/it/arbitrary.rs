//! Any value of any type of the model, drawn from a seed.
//!
//! A serde `Deserializer` that makes its input up: it walks the type, so a field or variant that the model gains is
//! drawn as well, without a generator to be kept in step. Every text is a valid id; what must parse as an address
//! says so in its visitor's expectation.

use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use skep_model::IdSource;

pub fn draw<T: for<'de> Deserialize<'de>>(seed: u64) -> T {
    let mut source = Source(IdSource::from_seed(u128::from(seed) << 64 | u128::from(!seed)));
    T::deserialize(&mut source).expect("a made-up value has the shape that was asked for")
}

struct Source(IdSource);

#[derive(Debug)]
struct Unsupported(String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Unsupported {}
impl serde::de::Error for Unsupported {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl Source {
    fn bits(&mut self) -> u64 {
        self.0.next_id::<()>().as_u128() as u64
    }

    /// Small numbers, large ones, and the limits, which a wrong width would cut.
    fn number(&mut self, max: u64) -> u64 {
        match self.0.below(4) {
            0 => self.0.below(3).min(max),
            1 => max,
            _ => self.bits() & max,
        }
    }

    fn text(&mut self, expected: &str) -> String {
        let bits = self.bits();
        let octets = bits.to_be_bytes();
        let v4 = format!("{}.{}.{}.{}", octets[0], octets[1], octets[2], octets[3]);
        match expected {
            "IPv4 address" => v4,
            "IPv6 address" => format!("fd00::{:x}", bits as u16),
            "IP address" if bits.is_multiple_of(2) => v4,
            "IP address" => format!("fd00::{:x}", bits as u16),
            "socket address" if bits.is_multiple_of(2) => format!("{v4}:{}", bits as u16),
            "socket address" => format!("[fd00::{:x}]:{}", bits as u16, octets[4]),
            "IPv4 network address" => format!("{v4}/{}", octets[4] % 33),
            "IPv6 network address" => format!("fd00::{:x}/{}", bits as u16, octets[4] % 129),
            _ => self.0.next_id::<()>().to_string(),
        }
    }

    fn length(&mut self) -> usize {
        self.0.below(4) as usize
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
            visitor.$visit(self.number(u64::from(<$type>::MAX)) as $type)
        }
    )*};
}

macro_rules! unsupported {
    ($($method:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unsupported> {
            Err(Unsupported(stringify!($method).to_owned()))
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Source {
    type Error = Unsupported;

    numbers!(deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64);
    unsupported!(
        deserialize_any,
        deserialize_i8,
        deserialize_i16,
        deserialize_f32,
        deserialize_char,
        deserialize_bytes,
        deserialize_byte_buf,
        deserialize_identifier,
        deserialize_ignored_any
    );

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        visitor.visit_i32(self.number(u64::from(u32::MAX)) as i32)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        visitor.visit_i64(self.number(u64::MAX) as i64)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        visitor.visit_f64(self.0.below(1001) as f64 / 1000.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        visitor.visit_bool(self.0.below(2) == 1)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        let text = self.text(&(&visitor as &dyn Expected).to_string());
        visitor.visit_string(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        match self.0.below(3) {
            0 => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unsupported> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unsupported> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        let left = self.length();
        visitor.visit_seq(Parts { source: self, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Unsupported> {
        visitor.visit_seq(Parts { source: self, left })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Unsupported> {
        visitor.visit_seq(Parts { source: self, left })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsupported> {
        let left = self.length();
        visitor.visit_map(Parts { source: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unsupported> {
        if name == "Duration" {
            // Within the range of nanoseconds in 64 bits.
            let parts = [self.0.below(18_000_000_000), self.0.below(1_000_000_000)];
            return visitor.visit_seq(serde::de::value::SeqDeserializer::new(parts.into_iter()));
        }
        visitor.visit_seq(Parts { source: self, left: fields.len() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unsupported> {
        visitor.visit_enum(Choice { of: variants.len() as u64, source: self })
    }
}

struct Parts<'a> {
    source: &'a mut Source,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Unsupported;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unsupported> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.source).map(Some)
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Unsupported;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unsupported> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unsupported> {
        seed.deserialize(&mut *self.source)
    }
}

struct Choice<'a> {
    source: &'a mut Source,
    of: u64,
}

impl<'a, 'de> EnumAccess<'de> for Choice<'a> {
    type Error = Unsupported;
    type Variant = Choice<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Unsupported> {
        let index: U32Deserializer<Unsupported> = (self.source.0.below(self.of) as u32).into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Unsupported;

    fn unit_variant(self) -> Result<(), Unsupported> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unsupported> {
        seed.deserialize(self.source)
    }

    fn tuple_variant<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Unsupported> {
        visitor.visit_seq(Parts { source: self.source, left })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unsupported> {
        visitor.visit_seq(Parts { source: self.source, left: fields.len() })
    }
}
