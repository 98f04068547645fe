//! The matrix of blocks and heads: a statistic of each, or its map.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::maps::{self, number_of};
use super::sheet::{Axis, ContactSheet};
use super::{Content, DrawError, Drawn, Look};
use crate::progress::Progress;
use crate::query::{Across, Arrange, Filter, List, Question, Reduction, TableName};
use crate::remedy::{Note, OptionName, Remedy};
use crate::render::Matrix;
use crate::store::Store;

/// What is shown of each head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadValue {
    /// Its map, a thumbnail.
    Map,
    /// A column of the table `heads`: its mean over the maps that are selected.
    Statistic(String),
}

/// A drawing of blocks (rows) by heads (columns).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadMatrix {
    /// The maps.
    pub filter: Filter,
    /// How they become one, where maps are shown.
    pub reduction: Reduction,
    /// What is shown of each.
    pub value: HeadValue,
    /// The latent frame of thumbnails; `None`: the mean over frames.
    pub frame: Option<usize>,
}

impl Default for HeadMatrix {
    /// How concentrated each head is: `top5`.
    fn default() -> Self {
        let value = HeadValue::Statistic("top5".to_owned());
        Self { filter: Filter::all(), reduction: Reduction::default(), value, frame: None }
    }
}

impl HeadMatrix {
    /// The question behind it.
    #[must_use]
    pub fn question(&self) -> Question {
        match &self.value {
            HeadValue::Map => Question::Average(self.sheet().question()),
            HeadValue::Statistic(column) => Question::List(list(&self.filter, &[column])),
        }
    }

    fn sheet(&self) -> ContactSheet {
        ContactSheet {
            filter: self.filter.clone(),
            reduction: self.reduction,
            rows: Axis::By(Across::Block),
            columns: Axis::By(Across::Head),
            frame: self.frame,
        }
    }

    /// Draws it.
    ///
    /// # Errors
    /// If the question cannot be answered, the maps were averaged over blocks and heads, or there is no such number.
    pub fn draw(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Drawn, DrawError> {
        let HeadValue::Statistic(column) = &self.value else {
            let look = Look {
                range: if look.range == crate::render::Range::default() {
                    crate::render::Range::Each(crate::render::Part::Frame)
                } else {
                    look.range
                },
                ..look.clone()
            };
            return self.sheet().draw(store, &look, progress);
        };
        if ["block", "head"].contains(&&**column) {
            return Err(DrawError::unfit(
                format!("`{column}` says which head it is, not what it is like"),
                "choose a statistic, such as top5, entropy_norm, gini or spread",
            ));
        }
        let given = [
            ("threshold", look.threshold.is_some()),
            ("normalise", look.normalise.is_some()),
            ("size", look.size.is_some()),
            ("frame", self.frame.is_some()),
        ];
        super::refuse(&given, "a statistic of heads")?;
        let Means { of_heads, undefined, rows, notes } = means(store, &self.filter, &[column])?;
        let mut notes = notes;
        if undefined > 0 {
            notes.push(format!("{undefined} of {rows} maps have no `{column}`: they are left out").into());
        }
        let sums: BTreeMap<Head, f64> = of_heads.into_iter().map(|(head, values)| (head, values[0])).collect();
        let blocks: BTreeSet<Option<i64>> = sums.keys().map(|(block, _)| *block).collect();
        let heads: BTreeSet<Option<i64>> = sums.keys().map(|(_, head)| *head).collect();
        if blocks.len() * heads.len() == 1 && sums.contains_key(&(None, None)) {
            return Err(DrawError::unfit(
                "these maps are averaged over blocks and heads: there is one number",
                Remedy::of("select videos whose heads were dumped one by one, with {}", [OptionName::Video.any()]),
            ));
        }
        let name = |number: &Option<i64>| number.map_or_else(|| "mean".to_owned(), |number| number.to_string());
        let value = |block: &Option<i64>, head: &Option<i64>| sums.get(&(*block, *head)).copied().unwrap_or(f64::NAN);
        let values: Vec<f64> = blocks
            .iter()
            .flat_map(|block| heads.iter().map(move |head| (block, head)))
            .map(|(block, head)| value(block, head))
            .collect();
        let shown = values.iter().map(|value| *value as f32);
        let look = Look {
            range: if look.range == crate::render::Range::default() { crate::render::Range::Shown } else { look.range },
            ..look.clone()
        };
        let scale = maps::scale(&look, shown, false);
        let words = self.filter.token.clone().unwrap_or_else(|| "all words".to_owned());
        let video = self.filter.video.clone().unwrap_or_default();
        let counts = format!("mean over {rows} maps");
        let parts = [words, video].into_iter().chain(maps::selected(&self.filter)).chain([counts]);
        let matrix = Matrix {
            title: maps::title(&look, [super::lines::in_words(column)].into_iter().chain(parts)),
            of_rows: "block".into(),
            of_columns: "head".into(),
            rows: blocks.iter().map(name).collect(),
            columns: heads.iter().map(name).collect(),
            values,
            scale,
            label: super::lines::in_words(column),
            notes: Vec::new(),
        };
        Drawn::new(Content::Matrix(matrix), &look, notes)
    }
}

fn list(filter: &Filter, columns: &[&str]) -> List {
    let columns = ["block", "head"].iter().chain(columns).map(|name| (*name).to_owned()).collect();
    let arrange = Arrange { columns: Some(columns), ..Arrange::default() };
    List { table: TableName::Heads, filter: filter.clone(), arrange }
}

/// A block and a head; of an axis that was averaged over, none.
pub(crate) type Head = (Option<i64>, Option<i64>);

/// Means of columns of `heads`, by head, over the rows that are selected; NaN where none is defined.
pub(crate) fn heads_by(store: &Store, filter: &Filter, columns: &[&str]) -> Result<Vec<(Head, Vec<f64>)>, DrawError> {
    Ok(means(store, filter, columns)?.of_heads)
}

struct Means {
    of_heads: Vec<(Head, Vec<f64>)>,
    /// Values that are undefined, and rows.
    undefined: usize,
    rows: usize,
    notes: Vec<Note>,
}

fn means(store: &Store, filter: &Filter, columns: &[&str]) -> Result<Means, DrawError> {
    let answer = list(filter, columns).run(store)?;
    let (table, rows) = (&answer.table, answer.table.height());
    if rows == 0 {
        let remedy = Remedy::of("select others with {}", [OptionName::Where.any()]);
        return Err(DrawError::unfit("no map is selected", remedy));
    }
    let is_number = |name: &&&str| !table.column(name).is_ok_and(|column| column.dtype().is_primitive_numeric());
    if let Some(odd) = columns.iter().find(is_number) {
        return Err(DrawError::unfit(
            format!("`{odd}` is no number that heads could be told apart by"),
            "choose a statistic, such as top5, entropy_norm, gini or spread",
        ));
    }
    let mut sums: BTreeMap<Head, Vec<(f64, u64)>> = BTreeMap::new();
    let mut undefined = 0;
    let place = |column: &str, row: usize| {
        let number = number_of(table, column, row);
        number.is_finite().then_some(number as i64)
    };
    for row in 0..rows {
        let of_head = sums.entry((place("block", row), place("head", row)));
        let of_head = of_head.or_insert_with(|| vec![(0.0, 0); columns.len()]);
        for (column, (sum, count)) in columns.iter().zip(of_head) {
            let value = number_of(table, column, row);
            if value.is_finite() {
                *sum += value;
                *count += 1;
            } else {
                undefined += 1;
            }
        }
    }
    let mean = |(sum, count): (f64, u64)| if count > 0 { sum / count as f64 } else { f64::NAN };
    let of_heads = sums.into_iter().map(|(head, sums)| (head, sums.into_iter().map(mean).collect())).collect();
    Ok(Means { of_heads, undefined, rows, notes: answer.notes })
}
