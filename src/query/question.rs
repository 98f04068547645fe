//! Any question, as a value: what the command line parses into, what Python passes, and what a server would take as
//! JSON.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::answer::Answer;
use super::average::Average;
use super::compare::Compare;
use super::error::QueryError;
use super::evolution::Evolution;
use super::explain::Explain;
use super::map::SpatialMap;
use super::plan::{self, Plan};
use super::tables::{List, Sql};
use crate::json::Json;
use crate::progress::Progress;
use crate::store::{Snapshot, Store};
use crate::suggest::did_you_mean;

/// A question to a store.
///
/// As JSON it has its name under `question`, and its fields beside it; what is left out is as in its `Default`. What it
/// does not have is refused.
///
/// ```
/// use attnkit::query::{Average, Filter, Question};
///
/// let json = r#"{"question": "average", "filter": {"token": "flower", "where": "step < 10"}, "over": ["block"]}"#;
/// let Question::Average(average) = Question::from_json(json)? else { unreachable!() };
/// assert_eq!(average.filter.token.as_deref(), Some("flower"));
/// assert_eq!(average.reduction, Average::default().reduction);
/// let error = Question::from_json(r#"{"question": "average", "ower": []}"#).unwrap_err();
/// assert!(error.to_string().contains("unknown field `ower`"));
/// # Ok::<(), attnkit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "lowercase")]
pub enum Question {
    /// Rows of a table.
    List(List),
    /// What a SQL statement selects.
    Sql(Sql),
    /// Maps, averaged or otherwise reduced.
    Average(Average),
    /// Change through the denoising steps.
    Evolution(Evolution),
    /// One spatial map.
    Map(SpatialMap),
    /// Groups of maps, pair by pair.
    Compare(Compare),
}

/// What answering a question will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Explanation {
    /// What is read of arrays, and what becomes of it.
    Maps(Explain),
    /// What polars does with the tables, in its words.
    Tables {
        /// Its plan.
        tables: String,
    },
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maps(explain) => explain.fmt(f),
            Self::Tables { tables } => f.write_str(tables),
        }
    }
}

impl Question {
    /// Names of the questions.
    pub const NAMES: [&'static str; 6] = ["list", "sql", "average", "evolution", "map", "compare"];

    /// Reads one.
    ///
    /// # Errors
    /// [`QueryError::NotAQuestion`] if it is no JSON object, no question of ours, or one with fields or values that it
    /// cannot have. Conditions are read when it is asked.
    pub fn from_json(json: &str) -> Result<Self, QueryError> {
        let refused = |found: String| QueryError::NotAQuestion { found, source: None };
        let mut fields = match serde_json::from_str(json) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(refused("a question is a JSON object".to_owned())),
            Err(error) => {
                let found = format!("a question is a JSON object: {error}");
                return Err(QueryError::NotAQuestion { found, source: Some(error) });
            }
        };
        // The reader of JSON takes the last of several.
        if let Some(odd) = Json::parse(json.as_bytes()).ok().and_then(|parsed| parsed.remarks.into_iter().next()) {
            let found = odd.split_once(": ").map_or(odd.as_str(), |(found, _)| found);
            return Err(refused(found.to_owned()));
        }
        // Serde would read a list as an object's values, in some order.
        let is_list = |field: &&str| fields.get(*field).is_some_and(Value::is_array);
        if let Some(field) = ["filter", "reduction", "arrange"].into_iter().find(is_list) {
            return Err(refused(format!("{field}: invalid type: a list, expected an object")));
        }
        let name = fields.remove("question");
        let fields = Value::Object(fields);
        match name.as_ref().and_then(Value::as_str) {
            Some("list") => read(fields).map(Self::List),
            Some("sql") => read(fields).map(Self::Sql),
            Some("average") => read(fields).map(Self::Average),
            Some("evolution") => read(fields).map(Self::Evolution),
            Some("map") => read(fields).map(Self::Map),
            Some("compare") => read(fields).map(Self::Compare),
            other => {
                let found = other.map_or_else(|| "nothing".to_owned(), |name| format!("`{name}`"));
                let near = other.map(|name| did_you_mean(name, Self::NAMES)).unwrap_or_default();
                Err(refused(format!("question: {found} is none of {}{near}", Self::NAMES.join(", "))))
            }
        }
    }

    /// Whether its condition can be used, as is found when it is asked.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check(&self) -> Result<(), QueryError> {
        match self {
            Self::List(List { filter, .. })
            | Self::Average(Average { filter, .. })
            | Self::Evolution(Evolution { filter, .. })
            | Self::Map(SpatialMap { filter, .. })
            | Self::Compare(Compare { filter, .. }) => filter.check(),
            Self::Sql(_) => Ok(()),
        }
    }

    /// What will be done to answer it on a state of a store.
    ///
    /// # Errors
    /// If it cannot be answered on these maps, or the store cannot be read.
    pub fn plan(&self, snapshot: &Snapshot) -> Result<Plan, QueryError> {
        match self {
            Self::List(list) => list.plan(snapshot),
            Self::Sql(sql) => sql.plan(snapshot),
            Self::Average(average) => average.plan(snapshot),
            Self::Evolution(evolution) => evolution.plan(snapshot),
            Self::Map(map) => map.plan(snapshot),
            Self::Compare(compare) => compare.plan(snapshot),
        }
    }

    /// The answer of a store as it is now.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), or if an array is damaged.
    pub fn run(&self, store: &Store, progress: &dyn Progress) -> Result<Answer, QueryError> {
        match self {
            Self::List(list) => list.run(store),
            Self::Sql(sql) => sql.run(store),
            Self::Average(average) => average.run(store, progress),
            Self::Evolution(evolution) => evolution.run(store, progress),
            Self::Map(map) => map.run(store, progress),
            Self::Compare(compare) => compare.run(store, progress),
        }
    }

    /// The same answer for who writes it to a file: maps that are to be resampled are so while they are written, a few
    /// frames at a time where the format allows it. [`Answer::resampled`] has them all.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_for_writing(&self, store: &Store, progress: &dyn Progress) -> Result<Answer, QueryError> {
        match self {
            Self::Map(map) => plan::run_for_writing(store, |snapshot| map.plan(snapshot), progress),
            other => other.run(store, progress),
        }
    }

    /// What answering will do.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn explain(&self, store: &Store) -> Result<Explanation, QueryError> {
        Ok(match self {
            Self::List(list) => Explanation::Tables { tables: list.explain(store)? },
            Self::Sql(sql) => Explanation::Tables { tables: sql.explain(store)? },
            Self::Average(average) => Explanation::Maps(average.explain(store)?),
            Self::Evolution(evolution) => Explanation::Maps(evolution.explain(store)?),
            Self::Map(map) => Explanation::Maps(map.explain(store)?),
            Self::Compare(compare) => Explanation::Maps(compare.explain(store)?),
        })
    }
}

/// What serde calls types of Rust, and what people do.
const TYPES: [(&str, &str); 7] = [
    ("usize", "an integer from 0"),
    ("i64", "an integer"),
    ("sequence", "a list"),
    ("map", "an object"),
    ("struct Filter", "an object"),
    ("struct Reduction", "an object"),
    ("struct Arrange", "an object"),
];

/// A question's fields; of what is wrong with them, the name of the field is said.
fn read<T: DeserializeOwned>(fields: Value) -> Result<T, QueryError> {
    serde_path_to_error::deserialize(fields).map_err(|error| {
        let mut said = error.inner().to_string();
        for (rust, word) in TYPES {
            for before in ["invalid type: ", "expected "] {
                said = said.replace(&format!("{before}{rust}"), &format!("{before}{word}"));
            }
        }
        // "unknown variant `wieght`, expected one of `prompt`, `weight`"
        let mut quoted = said.split('`').skip(1).step_by(2);
        let near = quoted.next().filter(|_| !said.contains("did you mean")).map(|name| did_you_mean(name, quoted));
        let near = near.unwrap_or_default();
        let mut fields = error.path().iter().rev().filter_map(|segment| match segment {
            Segment::Map { key } => Some(format!("{key}: ")),
            _ => None,
        });
        let field = fields.next().filter(|_| !said.starts_with("unknown field")).unwrap_or_default();
        QueryError::NotAQuestion { found: format!("{field}{said}{near}"), source: Some(error.into_inner()) }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::answer::AnswerKind::{self, Differences, Map, Maps, Matrix, Pairs, Rows, Series};
    use super::super::{
        Across, Align, Arrange, By, Dimension, Filter, Form, Grain, Partial, Reduction, TableName, Task,
    };
    use super::*;
    use crate::ingest::{self, IngestOptions};
    use crate::kernel::Reducer;
    use crate::progress::Silent;

    fn store(dir: &std::path::Path) -> Store {
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/dataset");
        ingest::run(&[dump], dir.join("store"), &IngestOptions::default(), &Silent).unwrap();
        Store::open(dir.join("store")).unwrap()
    }

    /// Every question, and every form of an answer.
    fn questions() -> Vec<Question> {
        let video = || Some("prompt_003_vid001".to_owned());
        let early = || Filter { step: Some(2), ..Filter::parse("step < 4").unwrap() };
        let word = || Filter { token: Some("circle".into()), ..Filter::parse("step < 3").unwrap() };
        let compare = |across| Compare {
            reduction: Reduction { rollups: false, ..Reduction::default() },
            ..Compare::new(word(), across)
        };
        let list = |table| List { table, filter: early(), ..List::default() };
        vec![
            Question::List(list(TableName::Steps)),
            Question::List(list(TableName::Heads)),
            Question::Sql(Sql::new("SELECT token, avg(gini) AS gini FROM heads GROUP BY token")),
            Question::Average(Average::new(early())),
            Question::Average(Average {
                over: vec![Dimension::Video, Dimension::Step],
                reduction: Reduction { reducer: Reducer::Max, skipna: true, rollups: true },
                values: false,
                arrange: Arrange { sort: vec!["mean:desc".parse().unwrap()], limit: Some(9), columns: None },
                ..Average::new(early())
            }),
            Question::Evolution(Evolution { by: Some(By::Head), ..Evolution::new(word()) }),
            Question::Map(SpatialMap {
                filter: Filter { video: video(), ..Filter { token: Some("circle".into()), ..early() } },
                size: Some((24, 36)),
                ..SpatialMap::default()
            }),
            Question::Compare(compare(Across::Prompt)),
            Question::Compare(Compare { align: Align::Mean, differences: true, ..compare(Across::Seed) }),
            Question::Compare(Compare { form: Form::Matrix, align: Align::Last, ..compare(Across::Head) }),
            Question::Compare(Compare { form: Form::Maps, ..compare(Across::Block) }),
        ]
    }

    #[test]
    fn a_question_goes_through_json_as_it_is() {
        for question in questions() {
            let json = serde_json::to_string(&question).unwrap();
            assert_eq!(Question::from_json(&json).unwrap(), question, "{json}");
            assert_eq!(serde_json::from_str::<Question>(&json).unwrap(), question, "{json}");
        }
        for name in Question::NAMES {
            let needed = match name {
                "sql" => r#", "statement": "SELECT 1""#,
                "compare" => r#", "across": "seed""#,
                _ => "",
            };
            let question = Question::from_json(&format!(r#"{{"question": "{name}"{needed}}}"#)).unwrap();
            let usual = match &question {
                Question::List(list) => *list == List::default(),
                Question::Sql(sql) => *sql == Sql::new("SELECT 1"),
                Question::Average(average) => *average == Average::new(Filter::all()),
                Question::Evolution(evolution) => *evolution == Evolution::new(Filter::all()),
                Question::Map(map) => *map == SpatialMap::default(),
                Question::Compare(compare) => *compare == Compare::new(Filter::all(), Across::Seed),
            };
            assert!(usual, "what is not said is as usual: {question:?}");
        }
    }

    #[test]
    fn what_is_no_question_is_refused_by_name() {
        for (json, said) in [
            ("[]", "a JSON object"),
            ("{", "a JSON object"),
            ("{}", "question: nothing is none of list, sql"),
            (r#"{"question": 3}"#, "question: nothing is none of"),
            (r#"{"question": "averge"}"#, "did you mean `average`"),
            (r#"{"question": "average", "ower": ["step"]}"#, "unknown field `ower`, expected one of `filter`"),
            (r#"{"question": "average", "ower": ["step"]}"#, "did you mean `over`"),
            (r#"{"question": "average", "over": ["steps"]}"#, "over: unknown variant `steps`"),
            (r#"{"question": "average", "filter": {"were": "step < 3"}}"#, "unknown field `were`"),
            (r#"{"question": "average", "filter": {"step": "3"}}"#, "step: invalid type: string"),
            (r#"{"question": "average", "reduction": {"reducer": "avg"}}"#, "reducer: unknown variant `avg`"),
            (r#"{"question": "average", "reduction": {"rollup": false}}"#, "did you mean `rollups`"),
            (r#"{"question": "average", "arrange": {"sort": ["mean:down"]}}"#, "sort: `down` is neither asc nor desc"),
            (r#"{"question": "list", "arrange": {"limit": -1}}"#, "limit: invalid value"),
            (r#"{"question": "list", "table": "tails"}"#, "table: unknown variant `tails`"),
            (r#"{"question": "sql"}"#, "missing field `statement`"),
            (r#"{"question": "compare"}"#, "missing field `across`"),
            (r#"{"question": "compare", "across": "wieght"}"#, "did you mean `weight`"),
            (
                r#"{"question": "compare", "across": "seed", "metric": ["cosin"]}"#,
                "metric: `cosin` is not a similarity metric",
            ),
            (r#"{"question": "list", "question": "map"}"#, "`question` is there more than once"),
            (r#"{"question": "list", "filter": {"step": 1, "step": 2}}"#, "`filter.step` is there more than once"),
            (r#"{"question": "map", "size": [24]}"#, "size: invalid length 1"),
            (r#"{"question": "map", "frames": "3"}"#, "frames: invalid type: string \"3\", expected an integer from 0"),
            (r#"{"question": "list", "filter": {"step": []}}"#, "step: invalid type: a list, expected an integer"),
            (
                r#"{"question": "list", "filter": "step < 3"}"#,
                "filter: invalid type: string \"step < 3\", expected an object",
            ),
            (r#"{"question": "list", "filter": ["v", "w"]}"#, "filter: invalid type: a list, expected an object"),
        ] {
            let error = Question::from_json(json).unwrap_err();
            assert!(matches!(error, QueryError::NotAQuestion { .. }), "{json}");
            assert!(error.to_string().contains(said), "{json}: {error}");
        }
        let wrong = Question::from_json(r#"{"question": "list", "filter": {"where": "stepp < 3"}}"#).unwrap();
        assert!(matches!(wrong.check(), Err(QueryError::UnknownColumn { .. })));
    }

    /// The values of some columns of a row.
    fn row_of(answer: &Answer, columns: &[String], row: usize) -> String {
        let value = |name: &String| answer.table.column(name).unwrap().get(row).unwrap().to_string();
        columns.iter().map(value).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn an_answer_says_what_it_is_and_its_keys_tell_all_rows_apart() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let mut kinds = Vec::new();
        for question in questions() {
            let answer = question.run(&store, &Silent).unwrap();
            kinds.push(answer.kind);
            let known: HashSet<String> =
                (0..answer.table.height()).map(|row| row_of(&answer, &answer.keys, row)).collect();
            if matches!(question, Question::Sql(_)) {
                assert!(answer.keys.is_empty());
            } else {
                assert!(answer.table.height() > 0);
                assert_eq!(known.len(), answer.table.height(), "{question:?}: {:?}", answer.keys);
            }
        }
        assert_eq!(kinds, [Rows, Rows, Rows, Maps, Maps, Series, Map, Pairs, Pairs, Matrix, Differences]);
        let without_step = List {
            arrange: Arrange { columns: Some(vec!["video_id".into(), "token".into()]), ..Arrange::default() },
            ..List::default()
        };
        assert!(without_step.run(&store).unwrap().keys.is_empty());
    }

    #[test]
    fn what_is_done_task_by_task_is_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        for question in questions() {
            let expected = question.run(&store, &Silent).unwrap();
            let plan = question.plan(&store.snapshot()).unwrap();
            for grain in [Grain::Fine, Grain::Coarse] {
                let mut merger = plan.merger();
                let mut tasks: Vec<Task> = plan.tasks(grain).collect();
                fastrand::Rng::with_seed(7).shuffle(&mut tasks);
                for task in tasks {
                    let left = Task::from_bytes(&task.to_bytes().unwrap()).unwrap().run(&store.snapshot()).unwrap();
                    merger.accept(Partial::from_bytes(&left.to_bytes().unwrap()).unwrap()).unwrap();
                }
                let found = merger.finish().unwrap();
                assert_eq!(found.to_bytes().unwrap(), expected.to_bytes().unwrap(), "{question:?}");
            }
            let explained = question.explain(&store).unwrap();
            if let Explanation::Maps(explained) = explained {
                let decoded: u64 = explained.arrays.iter().map(|array| array.decoded_bytes).sum();
                assert_eq!(decoded, expected.read.bytes, "nothing is read twice: {question:?}");
                assert!(decoded > 0);
            }
        }
    }

    #[test]
    fn difference_maps_come_of_the_same_reading() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let filter = || Filter { token: Some("circle".into()), ..Filter::parse("step < 3").unwrap() };
        let alone = Compare::new(filter(), Across::Seed).run(&store, &Silent).unwrap();
        let both = Compare { differences: true, ..Compare::new(filter(), Across::Seed) };
        let mut both = both.run(&store, &Silent).unwrap();
        let maps = Compare { form: Form::Maps, ..Compare::new(filter(), Across::Seed) }.run(&store, &Silent).unwrap();
        let beside = both.differences.take().unwrap();
        assert_eq!(both.to_bytes().unwrap(), alone.to_bytes().unwrap());
        assert!(beside.table.equals_missing(&maps.table));
        assert_eq!((&beside.maps, beside.kind), (&maps.maps, AnswerKind::Differences));
        both.differences = Some(beside.clone());
        let nested = Answer { differences: Some(Box::new(both.clone())), ..alone.clone() };
        let refused = Answer::from_bytes(&nested.to_bytes().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("of difference maps"), "{refused}");
        let sent = Answer::from_bytes(&both.to_bytes().unwrap()).unwrap().differences.unwrap();
        assert_eq!(sent.to_bytes().unwrap(), beside.to_bytes().unwrap());
    }
}
