//! One scrape: values gathered by family, then written in the text format by the `prometheus` crate.

use std::collections::BTreeMap;

use prometheus::proto;

use super::family::{Family, Kind};

#[derive(Default)]
pub(crate) struct Exposition {
    families: BTreeMap<&'static str, proto::MetricFamily>,
}

impl Exposition {
    /// Adds a counter or gauge with the values of the family's labels, in their order.
    pub(crate) fn value(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        let mut metric = proto::Metric::from_label(pairs(family, labels));
        match family.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            Kind::Histogram => return debug_assert!(false, "{} is a histogram", family.name),
        }
        self.family(family).mut_metric().push(metric);
    }

    /// Adds a histogram: cumulative counts under their upper bounds, the count and the sum of all.
    pub(crate) fn histogram(
        &mut self,
        family: &'static Family,
        labels: &[&str],
        cumulative: &[(f64, u64)],
        count: u64,
        sum: f64,
    ) {
        let mut metric = proto::Metric::from_label(pairs(family, labels));
        let mut histogram = proto::Histogram::default();
        let buckets = cumulative.iter().map(|(bound, below)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*below);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum);
        metric.set_histogram(histogram);
        self.family(family).mut_metric().push(metric);
    }

    pub(crate) fn text(self) -> String {
        let families: Vec<_> = self.families.into_values().collect();
        let mut text = String::new();
        if let Err(error) = prometheus::TextEncoder::new().encode_utf8(&families, &mut text) {
            // Only a family without metrics or name is refused, and none is made above.
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }

    fn family(&mut self, family: &'static Family) -> &mut proto::MetricFamily {
        self.families.entry(family.name).or_insert_with(|| {
            let mut made = proto::MetricFamily::default();
            made.set_name(family.name.to_owned());
            made.set_help(family.help.to_owned());
            made.set_field_type(match family.kind {
                Kind::Counter => proto::MetricType::COUNTER,
                Kind::Gauge => proto::MetricType::GAUGE,
                Kind::Histogram => proto::MetricType::HISTOGRAM,
            });
            made
        })
    }
}

fn pairs(family: &Family, labels: &[&str]) -> Vec<proto::LabelPair> {
    debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    family.labels.iter().zip(labels).map(pair).collect()
}
