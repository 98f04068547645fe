//! `attnkit query`: a file for each question, which says how it is typed, and what is common to all.

mod average;
mod compare;
mod evolution;
mod list;
pub(super) mod map;
pub(super) mod select;
mod sql;
pub(super) mod target;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::target::{OutputArgs, Target};
use super::progress::Bar;
use super::{Failure, Global, say_left_out};
use crate::query::{Answer, Question};
use crate::store::Store;

/// Below this, answers come before a progress bar would be read.
const WORTH_A_BAR: u64 = 500_000_000;
/// Heading of what all questions are told of their answers.
const OUTPUT: &str = "Output";

/// Ask a store: rows, averages, evolution over steps, maps, comparisons, SQL.
#[derive(Debug, Args)]
#[command(
    subcommand_value_name = "QUESTION",
    subcommand_help_heading = "Questions",
    after_help = "\
Examples (more: attnkit query average --help, and the other questions):
  attnkit query evolution maps.store --token flower --sparkline
  attnkit query average maps.store --over block,head,step -o words.npy
  attnkit query average maps.store --where \"token = 'flower' AND top5 > 0.3\"
  attnkit query map maps.store --video v1 --token flower --step 9 -o map.npy
  attnkit query compare maps.store --across prompt --token flower --where \"seed = 11\" --matrix
  attnkit query list maps.store --table heads --sort top5:desc --limit 10
  attnkit query sql maps.store \"SELECT token, avg(gini) FROM heads GROUP BY token\"

--where takes a SQL condition over the columns of both tables; what they are:
  attnkit query list maps.store --columns help"
)]
pub(super) struct QueryArgs {
    #[command(subcommand)]
    question: Typed,
}

#[derive(Debug, Subcommand)]
enum Typed {
    List(list::ListArgs),
    Average(average::AverageArgs),
    Evolution(evolution::EvolutionArgs),
    Map(map::MapArgs),
    Compare(compare::CompareArgs),
    Sql(sql::SqlArgs),
}

/// A question as it was typed.
trait Ask {
    /// Where it is asked.
    fn store(&self) -> &Path;

    /// Where the answer goes.
    fn output(&self) -> &OutputArgs;

    /// Whether the answer has maps, so that formats for these make sense.
    fn is_of_maps(&self) -> bool {
        false
    }

    /// Refuses what cannot be written, before anything is read.
    fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// What is meant.
    fn question(&self, target: &Target) -> Question;

    /// Writes the answer.
    fn write(&self, answer: Answer, target: &Target, global: &Global) -> Result<(), Failure> {
        target.write(answer, global)
    }
}

pub(super) fn run(args: &QueryArgs, global: &Global) -> Result<ExitCode, Failure> {
    let asked: &dyn Ask = match &args.question {
        Typed::List(args) if args.asks_for_columns() => return args.describe_columns(global),
        Typed::List(args) => args,
        Typed::Average(args) => args,
        Typed::Evolution(args) => args,
        Typed::Map(args) => args,
        Typed::Compare(args) => args,
        Typed::Sql(args) => args,
    };
    let store = Store::open(asked.store())?;
    let answered = answer(asked, &store, global);
    // Of what is left out may be what was asked for.
    let code = say_left_out(&store);
    answered.map(|()| code)
}

fn answer(asked: &dyn Ask, store: &Store, global: &Global) -> Result<(), Failure> {
    let target = Target::of(asked.output(), asked.store())?;
    if !asked.is_of_maps() {
        target.of_rows()?;
    }
    asked.check()?;
    let question = asked.question(&target);
    if asked.output().explain {
        return target.explain(&question.explain(store)?);
    }
    let bar = Bar::of_bytes("query", global.quiet).from(WORTH_A_BAR);
    let answer = question.run_for_writing(store, &bar)?;
    bar.finish();
    asked.write(answer, &target, global)
}
