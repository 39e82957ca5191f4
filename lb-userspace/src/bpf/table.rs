//! The maps of the schema as types, so that a key or value of one map cannot be
//! written to another.

use lb_common::schema::{self, MapDef};

/// A map of the schema, with the types of its keys and values.
pub trait Typed {
    /// Which map.
    const TABLE: Table;
    /// Its key.
    type Key: bytemuck::Pod;
    /// Its value.
    type Value: bytemuck::Pod;
}

macro_rules! tables {
    ($($name:ident: $kind:ident<$key:ty, $value:ty>[$entries:expr] $flags:expr, $owner:ident, $doc:literal;)+) => {
        /// A map of the schema.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[allow(non_camel_case_types, reason = "the names are the maps' own")]
        pub enum Table {
            $(#[doc = $doc] $name,)+
        }

        impl Table {
            /// Every map, in the order of [`schema::MAPS`].
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
        }

        /// One type a map, with its key and value.
        pub mod typed {
            $(
                #[doc = $doc]
                #[allow(non_camel_case_types, reason = "the name is the map's own")]
                #[derive(Clone, Copy, Debug)]
                pub struct $name;
                impl super::Typed for $name {
                    const TABLE: super::Table = super::Table::$name;
                    type Key = $key;
                    type Value = $value;
                }
            )+
        }
    };
}
lb_common::for_each_map!(tables);

impl Table {
    /// Its row of the schema.
    pub const fn def(self) -> &'static MapDef {
        &schema::MAPS[self as usize]
    }

    /// Its name, and the name of its pin.
    pub const fn name(self) -> &'static str {
        self.def().name
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_its_own_row_of_the_schema() {
        assert_eq!(Table::ALL.len(), schema::MAPS.len());
        for (table, def) in Table::ALL.iter().zip(schema::MAPS) {
            assert_eq!(table.name(), def.name);
        }
        assert_eq!(Table::lb_slots_v1.name(), "lb_slots_v1");
        assert_eq!(
            <typed::lb_frontends_v1 as Typed>::TABLE,
            Table::lb_frontends_v1
        );
    }
}
