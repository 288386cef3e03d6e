//! `--filter key=value`: values of one key are alternatives, keys are conditions; labels must all be there.

use std::collections::BTreeMap;

use anyhow::bail;

use crate::cli::Result;

/// The filters of a listing, by key.
#[derive(Debug, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// Something that an object can be filtered by.
#[derive(Debug)]
pub struct Facet {
    key: &'static str,
    value: String,
    by: Match,
}

#[derive(Debug, Clone, Copy)]
enum Match {
    Exact,
    Prefix,
    Contains,
    /// `name=value` by name alone too.
    Label,
}

impl Facet {
    pub fn exact(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, value: value.into(), by: Match::Exact }
    }

    pub fn prefix(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, value: value.into(), by: Match::Prefix }
    }

    pub fn contains(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, value: value.into(), by: Match::Contains }
    }

    pub fn labels<'a>(
        key: &'static str,
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> impl Iterator<Item = Self> {
        labels.into_iter().map(move |(name, value)| Self { key, value: format!("{name}={value}"), by: Match::Label })
    }

    fn matches(&self, wanted: &str) -> bool {
        match self.by {
            Match::Exact => self.value.eq_ignore_ascii_case(wanted),
            Match::Prefix => self.value.starts_with(wanted),
            Match::Contains => self.value.contains(wanted),
            Match::Label => self.value == wanted || self.value.split_once('=').is_some_and(|(name, _)| name == wanted),
        }
    }
}

impl Filters {
    /// `known` are the keys that the listing can be filtered by.
    pub fn parse(given: &[String], known: &[&str]) -> Result<Self> {
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for filter in given {
            let Some((key, value)) = filter.split_once('=') else {
                bail!("`{filter}` is not a filter; write it as key=value, with one of {}", known.join(", "));
            };
            let key = key.trim();
            if !known.contains(&key) {
                bail!("`{key}` is nothing to filter by here; use one of {}", known.join(", "));
            }
            filters.entry(key.to_owned()).or_default().push(value.trim().to_owned());
        }
        Ok(Self(filters))
    }

    /// What was given for a key.
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    pub fn keep(&self, facets: &[Facet]) -> bool {
        self.0.iter().all(|(key, wanted)| {
            let has = |wanted: &String| facets.iter().any(|facet| facet.key == key && facet.matches(wanted));
            match key.ends_with("label") {
                true => wanted.iter().all(has),
                false => wanted.iter().any(has),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(given: &[&str]) -> bool {
        let given: Vec<String> = given.iter().map(|&filter| filter.to_owned()).collect();
        let filters = Filters::parse(&given, &["id", "name", "mode", "label"]).unwrap();
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())]);
        let mut facets = vec![Facet::prefix("name", "web_front"), Facet::exact("mode", "global")];
        facets.extend(Facet::labels("label", &labels));
        filters.keep(&facets)
    }

    #[test]
    fn alternatives_of_one_key_and_conditions_of_several() {
        assert!(kept(&[]));
        assert!(kept(&["name=web"]));
        assert!(kept(&["name=api", "name=web"]));
        assert!(!kept(&["name=front"]));
        assert!(!kept(&["name=web", "mode=replicated"]));
        assert!(kept(&["label=a", "label=a=b", "label=c"]));
        assert!(!kept(&["label=a=b", "label=d"]));
    }

    #[test]
    fn what_cannot_be_filtered_by_is_refused_with_what_can() {
        let error = Filters::parse(&["colour=red".to_owned()], &["id", "name"]).unwrap_err();
        assert_eq!(error.to_string(), "`colour` is nothing to filter by here; use one of id, name");
    }
}
