//! The environment of an instance, which its ledger entry has in it: sorted, and in one piece of memory, since every
//! look at an entry reads it and next to none needs it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// Variables and their values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Names and values, one after the other.
    text: String,
    /// Where each name ends, and the value that follows it.
    ends: Vec<(usize, usize)>,
}

impl Environment {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let begins = [0].into_iter().chain(self.ends.iter().map(|(_, end)| *end));
        begins.zip(&self.ends).map(|(begin, (middle, end))| {
            let piece = |from, to| self.text.get(from..to).unwrap_or_default();
            (piece(begin, *middle), piece(*middle, *end))
        })
    }

    /// This one with some that are added or have another value.
    #[must_use]
    pub fn with(&self, others: impl IntoIterator<Item = (String, String)>) -> Self {
        let own = self.iter();
        let mut all: BTreeMap<String, String> = own
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        all.extend(others);
        Self::from(&all)
    }
}

impl From<&BTreeMap<String, String>> for Environment {
    fn from(variables: &BTreeMap<String, String>) -> Self {
        let long = variables
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let mut made = Self {
            text: String::with_capacity(long.sum()),
            ends: Vec::with_capacity(variables.len()),
        };
        for (name, value) in variables {
            made.text.push_str(name);
            let middle = made.text.len();
            made.text.push_str(value);
            made.ends.push((middle, made.text.len()));
        }
        made
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self::from(&BTreeMap::from(owned))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Environment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Variables)
    }
}

struct Variables;

impl<'de> Visitor<'de> for Variables {
    type Value = Environment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("variables and their values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Environment, A::Error> {
        let mut read = Environment::default();
        while map.next_key_seed(Piece(&mut read.text))?.is_some() {
            let middle = read.text.len();
            map.next_value_seed(Piece(&mut read.text))?;
            read.ends.push((middle, read.text.len()));
        }
        let names = || read.iter().map(|(name, _)| name);
        if names().is_sorted_by(|one, other| one < other) {
            return Ok(read);
        }
        // Written by somebody else: the last of two of one name counts.
        Ok(Environment::default().with(
            read.iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        ))
    }
}

/// A string that is added to others.
struct Piece<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for Piece<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Piece<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(environment: &Environment) -> Vec<(&str, &str)> {
        environment.iter().collect()
    }

    #[test]
    fn it_is_written_and_read_as_a_map_of_strings() {
        let made = Environment::from([("B", ""), ("A=", "x\"\n=ü"), ("", "c")]);
        let text = serde_json::to_string(&made).unwrap();
        assert_eq!(text, r#"{"":"c","A=":"x\"\n=ü","B":""}"#);
        let read: Environment = serde_json::from_str(&text).unwrap();
        assert_eq!(read, made);
        assert_eq!(all(&read), [("", "c"), ("A=", "x\"\n=ü"), ("B", "")]);
        let none: Environment = serde_json::from_str("{}").unwrap();
        assert_eq!(none, Environment::default());
        for wrong in [r#"{"A":1}"#, r#"["A"]"#, r#"{"A":null}"#] {
            assert!(
                serde_json::from_str::<Environment>(wrong).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn one_that_another_program_wrote_is_sorted_and_the_last_of_a_name_counts() {
        let read: Environment = serde_json::from_str(r#"{"B":"1","A":"2","B":"3"}"#).unwrap();
        assert_eq!(all(&read), [("A", "2"), ("B", "3")]);
    }

    #[test]
    fn a_variable_is_found_and_exchanged() {
        let made = Environment::from([("AB", "1"), ("B", "2")]);
        assert_eq!((made.get("AB"), made.get("A")), (Some("1"), None));
        let other = made.with([("A", "3"), ("B", "")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(all(&other), [("A", "3"), ("AB", "1"), ("B", "")]);
    }
}
