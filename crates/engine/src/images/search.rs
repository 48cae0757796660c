//! Searching registries.

use silo_docker::images::SearchResult;
use silo_docker::query::SearchQuery;
use silo_registry::Credentials;
use silo_types::Error;

use crate::engine::Engine;

/// How many results there are when nobody says it.
const DEFAULT_LIMIT: u32 = 25;
/// The most results.
const MAX_LIMIT: u32 = 100;

/// What results are to be like.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// `None` for any.
    is_official: Option<bool>,
    stars: i64,
    /// Nothing is: the filter `is-automated` is for what is no more.
    nothing: bool,
}

impl Wanted {
    /// Reads the filters. The words are dockerd's.
    fn new(query: &SearchQuery) -> Result<Self, Error> {
        let filters = &query.filters;
        filters.validate(&["is-automated", "is-official", "stars"])?;
        let nothing = filters.boolean("is-automated", false)?;
        let is_official = filters.boolean("is-official", false)?;
        let mut stars = 0;
        for text in filters.get("stars") {
            let number: i64 = text.parse().map_err(|_| {
                Error::invalid(format!(
                    "invalid filter 'stars={text}': strconv.Atoi: parsing {text:?}: invalid syntax"
                ))
            })?;
            stars = stars.max(number);
        }
        let is_official = filters.contains("is-official").then_some(is_official);
        Ok(Self { is_official, stars, nothing })
    }

    fn takes(&self, result: &SearchResult) -> bool {
        self.is_official.is_none_or(|wanted| wanted == result.is_official)
            && result.star_count >= self.stars
    }
}

/// How many results are asked for.
fn limit(query: &SearchQuery) -> Result<u32, Error> {
    let limit = query.limit;
    match u32::try_from(limit) {
        Ok(0) => Ok(DEFAULT_LIMIT),
        Ok(limit) if limit <= MAX_LIMIT => Ok(limit),
        _ => Err(Error::invalid(format!("limit {limit} is outside the range of [1, {MAX_LIMIT}]"))),
    }
}

impl Engine {
    /// `GET /images/search`: images on Docker Hub, or on the registry that the term begins with.
    pub async fn image_search(
        &self,
        query: &SearchQuery,
        credentials: &Credentials,
    ) -> Result<Vec<SearchResult>, Error> {
        let wanted = Wanted::new(query)?;
        if wanted.nothing {
            return Ok(Vec::new());
        }
        if query.term.contains("://") {
            let term = &query.term;
            return Err(Error::invalid(format!(
                "invalid repository name: repository name ({term}) should not have a scheme"
            )));
        }
        let found = self.registries.search(&query.term, limit(query)?, credentials).await;
        let mut found = found.map_err(Error::from_kind)?;
        found.retain(|result| wanted.takes(result));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use silo_docker::Filters;

    use super::*;

    fn query(filters: &[(&str, &str)], limit: i64) -> SearchQuery {
        let mut all = Filters::default();
        for (name, value) in filters {
            all.add(name, value);
        }
        SearchQuery { term: "x".into(), limit, filters: all }
    }

    #[test]
    fn filters() {
        let result = |star_count, is_official| SearchResult {
            star_count,
            is_official,
            ..SearchResult::default()
        };
        for (filters, takes) in [
            (&[][..], [true, true, true]),
            (&[("is-official", "true")], [false, true, false]),
            (&[("is-official", "false")], [true, false, true]),
            (&[("stars", "3")], [false, true, true]),
            (&[("stars", "3"), ("stars", "9")], [false, true, false]),
        ] {
            let wanted = Wanted::new(&query(filters, 0)).unwrap();
            let taken = [result(0, false), result(9, true), result(3, false)]
                .map(|result| wanted.takes(&result));
            assert_eq!(taken, takes, "{filters:?}");
        }
        for (filter, message) in [
            (("is-official", "x"), "invalid filter 'is-official=[x]'"),
            (
                ("stars", "x"),
                "invalid filter 'stars=x': strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            (("name", "x"), "invalid filter 'name'"),
        ] {
            assert_eq!(Wanted::new(&query(&[filter], 0)).unwrap_err().message(), message);
        }
        assert!(Wanted::new(&query(&[("is-automated", "true")], 0)).unwrap().nothing);
    }

    #[test]
    fn limits() {
        for (given, expected) in [(0, Some(25)), (1, Some(1)), (100, Some(100)), (101, None)] {
            assert_eq!(limit(&query(&[], given)).ok(), expected, "{given}");
        }
        let error = limit(&query(&[], 101)).unwrap_err();
        assert_eq!(error.message(), "limit 101 is outside the range of [1, 100]");
    }
}
