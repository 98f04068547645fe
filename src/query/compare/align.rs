//! Which steps of the sides are compared with each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Across, Align, Compare};
use crate::query::error::{QueryError, few};
use crate::query::key::KeyValue;
use crate::query::selection::SelectedStep;
use crate::remedy::{Note, OptionName, Remedy};

impl Compare {
    /// Leaves out the steps of which it is not known on which side they are: what is unknown is not equal.
    pub(super) fn leave_out_unknown(
        &self,
        steps: &mut Vec<SelectedStep>,
        notes: &mut Vec<Note>,
    ) -> Result<(), QueryError> {
        let (is_known, column): (fn(&SelectedStep) -> bool, _) = match self.across {
            Across::Prompt => (|step| step.prompt.is_some(), "prompt"),
            Across::Seed => (|step| step.seed.is_some(), "seed"),
            Across::Weight => (|step| step.weight.is_some(), "weight"),
            Across::Block => (|step| step.numbers.block(step.shape, 0).is_some(), "block"),
            Across::Head => (|step| step.numbers.head(step.shape, 0).is_some(), "head"),
            Across::Video | Across::Token | Across::Step => return Ok(()),
        };
        let unknown: BTreeSet<&str> = steps.iter().filter(|step| !is_known(step)).map(|step| &*step.video_id).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let (count, all) = (steps.iter().filter(|step| !is_known(step)).count(), steps.len());
        let reason = if matches!(self.across, Across::Block | Across::Head) {
            format!("{column}s are averaged")
        } else {
            format!("{column} is not known")
        };
        let note = format!("left out: {count} of {all} steps, whose {reason} (videos {})", few(&unknown));
        steps.retain(is_known);
        if steps.is_empty() {
            let condition = Some(format!("{column} IS NOT NULL"));
            return Err(QueryError::NothingSelected { condition, remedy: self.why_unknown() });
        }
        notes.push(note.into());
        Ok(())
    }

    /// Why of no step it is known on which side it is.
    fn why_unknown(&self) -> Remedy {
        match self.across {
            Across::Prompt => "the dump's metadata has no prompt".into(),
            Across::Seed => "the dump's metadata has no seed, or one that is no integer of 64 bits".into(),
            Across::Weight => Remedy::of(
                "no weight is known of these words: ingest again with {}, which changes nothing else, or name token \
                 directories as in token_flower:2.5",
                [OptionName::Prompts.any()],
            ),
            other => format!("{0}s are averaged in the dump: there is one map of all of them", other.name()).into(),
        }
    }

    /// Keeps the steps that are compared, relabelled so that those compared with each other have one number, and
    /// ordered so that all sides of a step come together.
    pub(super) fn align(&self, steps: &mut Vec<SelectedStep>, notes: &mut Vec<Note>) -> Result<(), QueryError> {
        match self.align {
            _ if self.across == Across::Step => {}
            Align::Step | Align::Mean => {}
            Align::Last => {
                let last: HashMap<_, _> = steps.iter().map(|step| (step.array.clone(), step.step)).fold(
                    HashMap::new(),
                    |mut last, (array, step)| {
                        let known = last.entry(array).or_insert(step);
                        *known = step.max(*known);
                        last
                    },
                );
                steps.retain(|step| last.get(&step.array) == Some(&step.step));
            }
            Align::Timestep => *steps = self.nearest_in_time(steps, notes)?,
        }
        if self.by_step() {
            steps.sort_by_key(|step| step.step);
        }
        Ok(())
    }

    /// For each timestep of the side that has the fewest, the steps of every video nearest to it, under that side's
    /// number. Of a timestep that is visited several times, the visits are paired in their order.
    fn nearest_in_time(&self, steps: &[SelectedStep], notes: &mut Vec<Note>) -> Result<Vec<SelectedStep>, QueryError> {
        let side = |step: &SelectedStep| match self.across {
            Across::Prompt => step.prompt.clone().map_or(KeyValue::Null, KeyValue::Text),
            Across::Seed => step.seed.map_or(KeyValue::Null, KeyValue::Int),
            Across::Token => KeyValue::Text(step.token.clone()),
            Across::Weight => step.weight.map_or(KeyValue::Null, KeyValue::float),
            _ => KeyValue::Text(step.video_id.clone()),
        };
        let mut schedules = Vec::new();
        let mut unusable: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for series in steps.chunk_by(|a, b| a.array == b.array) {
            match Schedule::of(series) {
                Ok(schedule) => schedules.push(schedule),
                Err(reason) => drop(unusable.entry(reason).or_default().insert(&series[0].video_id)),
            }
        }
        let of_fewest = |schedule: &&Schedule<'_>| (schedule.times.len(), side(schedule.times[0].0));
        let Some(reference) = schedules.iter().min_by_key(of_fewest) else {
            let reasons = unusable.iter().map(|(reason, videos)| format!("{reason} ({})", few(videos)));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            let tries = [OptionName::Align.is("step"), OptionName::Align.is("last")];
            let remedy = Remedy::of("pair steps by number with {}, or compare {} or mean", tries);
            return Err(QueryError::question(format!("nothing can be paired by timestep: {reasons}"), remedy));
        };
        let all = steps.iter().map(|step| &step.video_id).collect::<HashSet<_>>().len();
        for (reason, videos) in &unusable {
            notes.push(
                format!(
                    "left out of the alignment by timestep: {} of {all} videos, whose {reason} ({})",
                    videos.len(),
                    few(videos)
                )
                .into(),
            );
        }
        let own = side(reference.times[0].0);
        let others =
            schedules.iter().filter(|schedule| side(schedule.times[0].0) == own && !schedule.has_times_of(reference));
        let others: BTreeSet<&str> = others.map(|schedule| &*schedule.times[0].0.video_id).collect();
        if !others.is_empty() {
            notes.push(
                format!(
                    "timesteps are those of {}; {} on the same side have others, and their nearest steps are taken",
                    reference.times[0].0.video_id,
                    few(&others)
                )
                .into(),
            );
        }
        let repeated: BTreeSet<&str> = schedules
            .iter()
            .filter(|schedule| {
                schedule.visits != reference.visits
                    && schedule.visits.iter().chain(&reference.visits).any(|&visit| visit > 0)
            })
            .map(|schedule| &*schedule.times[0].0.video_id)
            .collect();
        if !repeated.is_empty() {
            notes.push(format!(
                "timesteps are visited several times, and not equally often in {} and {}: the first visits are paired \
                 first",
                reference.times[0].0.video_id,
                few(&repeated)
            ).into());
        }
        let mut aligned: Vec<SelectedStep> = Vec::new();
        let mut stretched: BTreeSet<&str> = BTreeSet::new();
        for schedule in &schedules {
            let mut taken = HashSet::new();
            for (&(of, time), &visit) in reference.times.iter().zip(&reference.visits) {
                let nearest = schedule.nearest(time, visit);
                if !taken.insert(nearest.step) {
                    stretched.insert(&nearest.video_id);
                }
                aligned.push(SelectedStep { step: of.step, ..nearest.clone() });
            }
        }
        let passed_over: usize =
            schedules.iter().map(|schedule| schedule.times.len().saturating_sub(reference.times.len())).sum();
        if passed_over > 0 {
            notes.push(format!(
                "paired are the {} timesteps of {}, the fewest; {passed_over} steps of others are nearest to none of \
                 them, and left out",
                reference.times.len(),
                reference.times[0].0.video_id
            ).into());
        }
        if !stretched.is_empty() {
            notes.push(
                format!(
                    "a step of {} is the nearest to several timesteps of {}, and is compared at each of them",
                    few(&stretched),
                    reference.times[0].0.video_id
                )
                .into(),
            );
        }
        Ok(aligned)
    }
}

/// The steps of one word of one video with their timesteps, which must tell an order.
struct Schedule<'a> {
    times: Vec<(&'a SelectedStep, f64)>,
    /// How often each timestep was visited before.
    visits: Vec<usize>,
}

impl<'a> Schedule<'a> {
    /// The error says why the steps cannot be told by their times.
    fn of(series: &'a [SelectedStep]) -> Result<Self, &'static str> {
        let times: Option<Vec<_>> = series.iter().map(|step| Some((step, step.timestep?))).collect();
        let times = times.filter(|times| !times.is_empty()).ok_or("timesteps are not all known")?;
        let ordered = |order: fn(f64, f64) -> bool| times.windows(2).all(|pair| order(pair[0].1, pair[1].1));
        if times.len() > 1 && ordered(|a, b| a == b) {
            return Err("timesteps are all the same");
        }
        if !ordered(|a, b| a >= b) && !ordered(|a, b| a <= b) {
            return Err("timesteps neither only fall nor only rise");
        }
        let visit = |place: usize| times[..place].iter().rev().take_while(|(_, time)| *time == times[place].1).count();
        let visits = (0..times.len()).map(visit).collect();
        Ok(Self { times, visits })
    }

    fn has_times_of(&self, other: &Self) -> bool {
        let times = |schedule: &Self| schedule.times.iter().map(|(_, time)| time.to_bits()).collect::<Vec<_>>();
        times(self) == times(other)
    }

    /// The step nearest to a time; of several visits to it, that visit or the last before.
    fn nearest(&self, time: f64, visit: usize) -> &'a SelectedStep {
        let distance = |place: usize| (self.times[place].1 - time).abs();
        let first = (0..self.times.len()).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap_or(0);
        let again = (first..self.times.len()).take_while(|&place| self.times[place].1 == self.times[first].1).count();
        self.times[first + visit.min(again - 1)].0
    }
}
