//! Lists in pages.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiError;
use crate::store::rows::{self, Row, Versioned};
use crate::store::{Key, MAX_LISTING, Prefix, Store};

/// Items of a page unless the caller says otherwise.
const DEFAULT_LIMIT: usize = 100;
/// Most items of a page.
const MAX_LIMIT: usize = 500;

/// Which page.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Most items of the answer [default: 100].
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// `next` of the page before.
    #[param(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", max_length = 36)]
    after: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// In the order in which they were made.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; null on the last.
    pub next: Option<String>,
}

impl Paging {
    /// Of this many items, after that one.
    #[must_use]
    pub fn new(limit: Option<usize>, after: Option<String>) -> Self {
        Self { limit, after }
    }

    /// The rows of this kind that `wanted` picks, in the order of their ids.
    ///
    /// # Errors
    /// When a parameter makes no sense, or the store fails.
    pub(super) async fn of<T: Row>(
        &self,
        store: &dyn Store,
        wanted: impl Fn(&T) -> bool + Send,
    ) -> Result<Page<Versioned<T>>, ApiError> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("{limit} items a page"), "ask for 1 to 500"));
        }
        let mut after = match &self.after {
            None => None,
            Some(text) => {
                let is_id = uuid::Uuid::try_parse(text).is_ok_and(|id| id.hyphenated().to_string() == *text);
                if !is_id {
                    let what = "it is no place in a list";
                    return Err(ApiError::invalid("after", what, "give what `next` said"));
                }
                Some(Key::of([T::KIND, text.as_str()])?)
            }
        };
        let prefix = Prefix::of([T::KIND])?;
        let mut items = Vec::new();
        loop {
            let page = rows::list::<T>(store, &prefix, after.as_ref(), MAX_LISTING).await?;
            after = page.rows.last().map(|row| row.key.clone());
            for row in page.rows {
                if !wanted(&row.row) {
                    continue;
                }
                if items.len() == limit {
                    // One more than fits: there is a next page.
                    return Ok(Page { next: items.last().and_then(id_of), items });
                }
                items.push(row);
            }
            if !page.more || after.is_none() {
                return Ok(Page { items, next: None });
            }
        }
    }
}

fn id_of<T>(row: &Versioned<T>) -> Option<String> {
    row.key.segments().next_back().map(String::from)
}

impl<T> Page<T> {
    /// The same page of other forms.
    pub(super) fn map<U>(self, form: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(form).collect(), next: self.next }
    }
}
