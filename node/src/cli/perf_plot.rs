//! The plot of `tandem perf`: latency by share of the exchanges, and throughput by run, as one SVG.

use std::error::Error;

use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, Circle, DrawingArea, IntoDrawingArea, IntoFont, LineSeries, PathElement,
        RGBColor, SVGBackend, SeriesLabelPosition,
    },
    style::{Color, WHITE},
};

/// Width and height of the plot, in pixels.
const SIZE: (u32, u32) = (800, 640);

/// Colours of series, apart for those who see few. Source: Okabe and Ito's palette.
const COLOURS: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0)];

type Failed = Box<dyn Error + Send + Sync>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line of a plot: its name, and its values in order.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    pub(super) values: &'a [f64],
}

/// Draws latencies, in milliseconds and the shortest first, and the throughput of runs, in megabits a second.
pub(super) fn svg(
    title: &str,
    latency: &[f64],
    throughput: &[Series<'_>],
) -> Result<String, Failed> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(title, ("sans-serif", 14))?;
        let (above, below) = root.split_vertically(SIZE.1 / 2);
        let share =
            |index: usize| index as f64 * 100.0 / latency.len().max(2).saturating_sub(1) as f64;
        let points = latency.iter().enumerate().map(|(index, ms)| (share(index), *ms)).collect();
        draw(
            &above,
            "Latency, in ms",
            "exchanges that took no longer, in %",
            100.0,
            &[("latency", points)],
        )?;
        let runs = throughput.iter().map(|series| series.values.len()).max().unwrap_or(0);
        let lines: Vec<(&str, Vec<(f64, f64)>)> = throughput
            .iter()
            .map(|series| {
                let points = (1..).zip(series.values).map(|(run, rate)| (f64::from(run), *rate));
                (series.name, points.collect())
            })
            .collect();
        draw(&below, "Throughput, in Mbit/s", "run", (runs as f64).max(1.0), &lines)?;
        root.present()?;
    }
    Ok(text)
}

/// Draws lines over one axis, which begins at nought.
fn draw(
    area: &Area<'_>,
    caption: &str,
    below: &str,
    width: f64,
    lines: &[(&str, Vec<(f64, f64)>)],
) -> Result<(), Failed> {
    let values = lines.iter().flat_map(|(_, points)| points.iter().map(|(_, value)| *value));
    let height = values.fold(0.0_f64, f64::max).max(f64::MIN_POSITIVE) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16).into_font())
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..width, 0.0..height)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_label_formatter(&number).y_label_formatter(&number);
    mesh.x_desc(below).light_line_style(WHITE).draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS) {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 2, colour.filled())))?;
    }
    if lines.len() > 1 {
        let labels = SeriesLabelPosition::LowerLeft;
        chart.configure_series_labels().position(labels).background_style(WHITE).draw()?;
    }
    Ok(())
}

/// A number at an axis: three decimals at most, and no noughts behind them.
fn number(value: &f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_point_for_each_measurement_and_harmless_names() {
        let latency = [0.5, 0.6, 2.0];
        let throughput = [
            Series { name: "upload", values: &[100.0, 200.0] },
            Series { name: "download", values: &[300.0, 400.0] },
        ];
        let drawn = svg("to <script>", &latency, &throughput).unwrap();
        assert!(drawn.starts_with("<svg ") && drawn.trim_end().ends_with("</svg>"), "{drawn}");
        assert_eq!(drawn.matches("<circle").count(), 3 + 4);
        assert!(drawn.contains("upload") && drawn.contains("download"));
        assert!(!drawn.contains("<script>"), "{drawn}");
    }

    #[test]
    fn nothing_to_plot_is_a_plot_too() {
        for latency in [&[][..], &[0.0], &[1.0]] {
            assert!(svg("none", latency, &[]).is_ok());
        }
    }
}
