//! Sets of words that EC2 has for something, each as a type: read, written, kept and told alike everywhere.

/// Makes an enum of words. It reads and writes itself as text, in the catalogue and in JSON.
macro_rules! words {
    (
        $(#[$about:meta])*
        $vis:vis enum $name:ident as $what:literal { $( $(#[$word_about:meta])* $word:ident = $text:literal, )+ }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $name { $( $(#[$word_about])* $word, )+ }

        impl $name {
            /// All there are.
            pub const ALL: &'static [Self] = &[$( Self::$word, )+];

            /// As EC2 writes it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$word => $text, )+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::cloud::CloudError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().find(|word| word.as_str() == text).copied();
                found.ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|word| word.as_str()).collect();
                    let message = format!("Invalid value '{text}' for {}; possible are {}", $what, all.join(", "));
                    $crate::cloud::CloudError::value(message)
                })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl rusqlite::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                value.as_str()?.parse().map_err(|error| rusqlite::types::FromSqlError::Other(Box::new(error)))
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    words! {
        /// Sizes.
        enum Size as "size" {
            /// Small.
            Small = "small",
            /// Large.
            Large = "large",
        }
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for size in Size::ALL {
            assert_eq!(size.to_string().parse::<Size>().unwrap(), *size);
            assert_eq!(serde_json::to_string(size).unwrap(), format!("\"{size}\""));
        }
        let error = "Small".parse::<Size>().unwrap_err();
        assert_eq!(error.code(), "InvalidParameterValue");
        assert_eq!(error.to_string(), "Invalid value 'Small' for size; possible are small, large");
    }

    #[test]
    fn another_word_in_the_catalogue_is_an_error() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        assert_eq!(db.query_row("SELECT ?1", [Size::Large], |row| row.get::<_, Size>(0)).unwrap(), Size::Large);
        assert!(db.query_row("SELECT 'huge'", [], |row| row.get::<_, Size>(0)).is_err());
    }
}
