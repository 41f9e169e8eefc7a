//! The table.
use serde::Serialize;
use std::fmt::Write;

/// One line of it.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    work: String,
    ours: f64,
    unit: &'static str,
    baseline_name: String,
    baseline: Option<f64>,
    ratio: Option<f64>,
    goal: String,
    met: bool,
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Ours beside a baseline; a goal of 0 is none.
pub(crate) fn beside(work: &str, unit: &'static str, ours: f64, (name, baseline): (&str, f64), goal: f64) -> Row {
    let ratio = ours / baseline;
    Row {
        work: work.to_owned(),
        ours,
        unit,
        baseline_name: name.to_owned(),
        baseline: Some(baseline),
        ratio: Some(ratio),
        goal: if goal > 0.0 { format!("≥ {goal} ×") } else { "–".to_owned() },
        met: ratio >= goal,
    }
}

/// Ours beside a baseline that it may exceed by so much: for what should be small.
pub(crate) fn at_most(work: &str, unit: &'static str, ours: f64, baseline: (&str, f64), goal: f64) -> Row {
    let row = beside(work, unit, ours, baseline, 0.0);
    let said = if goal.is_finite() { format!("≤ {goal} ×") } else { row.goal.clone() };
    Row { goal: said, met: ours <= goal * baseline.1, ..row }
}

/// As [`at_most`], or ours alone where the baseline did not run: then no goal is met or missed.
pub(crate) fn compared(work: &str, unit: &'static str, ours: f64, baseline: Option<(&str, f64)>, goal: f64) -> Row {
    baseline
        .map_or_else(|| below(work, unit, ours, f64::INFINITY), |baseline| at_most(work, unit, ours, baseline, goal))
}

/// Ours alone, which must reach a goal; 0 is none.
pub(crate) fn above(work: &str, unit: &'static str, ours: f64, goal: f64) -> Row {
    let goal_text = if goal > 0.0 { format!("≥ {goal}") } else { "–".to_owned() };
    Row { goal: goal_text, met: ours >= goal, ..below(work, unit, ours, f64::INFINITY) }
}

/// Ours, which must stay below a limit; an infinite one is none.
pub(crate) fn below(work: &str, unit: &'static str, ours: f64, limit: f64) -> Row {
    Row {
        work: work.to_owned(),
        ours,
        unit,
        baseline_name: "–".to_owned(),
        baseline: None,
        ratio: None,
        goal: if limit.is_finite() { format!("< {limit}") } else { "–".to_owned() },
        met: ours < limit,
    }
}

pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = "| work | ours | unit | baseline | its figure | ratio | goal | met |\n".to_owned();
    text += "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
    for row in rows {
        let figure =
            |figure: Option<f64>, digits: usize| figure.map_or_else(|| "–".to_owned(), |f| format!("{f:.digits$}"));
        let digits = if row.ours < 100.0 { 2 } else { 0 };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.work,
            figure(Some(row.ours), digits),
            row.unit,
            row.baseline_name,
            figure(row.baseline, digits),
            figure(row.ratio, 2),
            row.goal,
            if row.met { "yes" } else { "no" },
        );
    }
    text
}
