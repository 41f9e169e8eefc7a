//! The timeline, as a page for a browser and as JSON.
use super::load::Sample;
use serde_json::{Value, json};
use std::{fmt::Write, fs, time::Duration};

/// A second of the rehearsal.
#[derive(Debug, Clone, Default)]
pub(super) struct Second {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) longest_ms: f64,
    pub(super) bids: usize,
    pub(super) rows: i64,
}

/// A line of a chart: its name, its colour, its values.
type Line = (&'static str, &'static str, fn(&Second) -> f64);

/// What is reported.
pub(super) struct Report {
    pub(super) seconds: Vec<Second>,
    /// When each phase began, in seconds.
    pub(super) phases: Vec<(f64, String)>,
    pub(super) proofs: Vec<(String, String)>,
    pub(super) figures: Value,
}

/// By second.
pub(super) fn seconds(samples: &[Sample], rows: &[(Duration, i64)]) -> Vec<Second> {
    let last = samples.iter().map(|sample| sample.at.as_secs()).max().unwrap_or_default();
    let mut by_second = vec![Vec::new(); usize::try_from(last).unwrap_or_default() + 1];
    for sample in samples {
        by_second[usize::try_from(sample.at.as_secs()).unwrap_or_default()].push(sample.took.as_secs_f64() * 1_000.0);
    }
    let mut seconds: Vec<_> = by_second.into_iter().map(of_second).collect();
    for pair in rows.windows(2) {
        if let Some(second) = seconds.get_mut(usize::try_from(pair[1].0.as_secs()).unwrap_or_default()) {
            second.rows += pair[1].1 - pair[0].1;
        }
    }
    seconds
}

fn of_second(mut took_ms: Vec<f64>) -> Second {
    took_ms.sort_by(f64::total_cmp);
    Second {
        p50_ms: percentile(&took_ms, 50),
        p99_ms: percentile(&took_ms, 99),
        longest_ms: took_ms.last().copied().unwrap_or_default(),
        bids: took_ms.len(),
        rows: 0,
    }
}

pub(super) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    crate::bids::load::percentile(sorted, percent)
}

impl Report {
    pub(super) fn write(&self, out: &str) -> anyhow::Result<()> {
        fs::create_dir_all(out)?;
        let seconds = self.seconds.iter().map(|second| {
            json!({ "p50_ms": second.p50_ms, "p99_ms": second.p99_ms, "longest_ms": second.longest_ms,
                    "bids": second.bids, "rows": second.rows })
        });
        let phases: Vec<_> = self.phases.iter().map(|(at, name)| json!({ "at_s": at, "phase": name })).collect();
        let proofs: Vec<_> = self.proofs.iter().map(|(what, how)| json!({ "what": what, "evidence": how })).collect();
        let json = json!({ "figures": self.figures, "phases": phases, "proofs": proofs,
                           "seconds": seconds.collect::<Vec<_>>() });
        fs::write(format!("{out}/rehearsal.json"), serde_json::to_string_pretty(&json)? + "\n")?;
        fs::write(format!("{out}/rehearsal.md"), self.tables())?;
        Ok(fs::write(format!("{out}/rehearsal.html"), self.page())?)
    }

    fn tables(&self) -> String {
        let mut text = "| what was proved | evidence |\n| --- | --- |\n".to_owned();
        for (what, how) in &self.proofs {
            let _ = writeln!(text, "| {what} | {} |", how.replace('|', "\\|"));
        }
        text += "\n| figure | |\n| --- | --- |\n";
        for (name, value) in self.figures.as_object().into_iter().flatten() {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        text
    }

    fn page(&self) -> String {
        let mut page = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Rehearsal of a schema change\
                        </title><style>body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;\
                        padding:0 1rem;color:#1c1c1c}svg{width:100%;height:auto;background:#fafafa}\
                        td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #ddd}\
                        table{border-collapse:collapse}text{font:11px system-ui,sans-serif}</style>\
                        <h1>Rehearsal of a schema change</h1><p>Bids at a steady rate, each second of them, while a \
                        column changes its type beneath them: the last release's program and the new one beside each \
                        other, rows filled, the old form out of reach, brought back, and dropped.</p>"
            .to_owned();
        #[expect(clippy::cast_precision_loss, reason = "for a picture")]
        let charts: [(&str, &[Line]); 2] = [
            (
                "Milliseconds of a bid",
                &[
                    ("longest", "#d0d0d0", |second| second.longest_ms),
                    ("p99", "#c2410c", |second| second.p99_ms),
                    ("p50", "#1d4ed8", |second| second.p50_ms),
                ],
            ),
            ("Rows filled in a second", &[("rows", "#15803d", |second| second.rows as f64)]),
        ];
        for (title, lines) in charts {
            let _ = write!(page, "<h2>{title}</h2>{}", self.chart(lines));
        }
        page += "<h2>What was proved</h2><table><tr><th>what</th><th>evidence</th></tr>";
        for (what, how) in &self.proofs {
            let _ = write!(page, "<tr><td>{}</td><td>{}</td></tr>", escaped(what), escaped(how));
        }
        page += "</table><h2>Figures</h2><table>";
        for (name, value) in self.figures.as_object().into_iter().flatten() {
            let _ = write!(page, "<tr><td>{}</td><td>{}</td></tr>", escaped(name), escaped(&value.to_string()));
        }
        page + "</table></html>\n"
    }

    #[expect(clippy::cast_precision_loss, reason = "for a picture")]
    fn chart(&self, lines: &[Line]) -> String {
        let (width, height, bottom) = (1_000.0, 260.0, 40.0);
        let most = lines.iter().flat_map(|(_, _, of)| self.seconds.iter().map(of)).fold(1.0, f64::max);
        let x = |second: f64| second / self.seconds.len().max(1) as f64 * width;
        let y = |value: f64| (height - bottom) * (1.0 - value / most) + 10.0;
        let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\">");
        for (nth, (at, name)) in self.phases.iter().enumerate() {
            let row = height - 26.0 + (nth % 3) as f64 * 11.0;
            let _ = write!(
                svg,
                "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"0\" y2=\"{1:.1}\" stroke=\"#999\" stroke-dasharray=\"3\"/>\
                 <text x=\"{2:.1}\" y=\"{row:.1}\">{3}</text>",
                x(*at),
                height - 34.0,
                x(*at) + 2.0,
                escaped(name)
            );
        }
        for (nth, (name, colour, of)) in lines.iter().enumerate() {
            let points = self.seconds.iter().enumerate();
            let points: Vec<_> =
                points.map(|(at, second)| format!("{:.1},{:.1}", x(at as f64), y(of(second)))).collect();
            let _ = write!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\
                 <text x=\"{}\" y=\"12\" fill=\"{colour}\">{name}</text>",
                points.join(" "),
                60 + nth * 70
            );
        }
        let _ = write!(svg, "<text x=\"2\" y=\"12\">{most:.0}</text></svg>");
        svg
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
