//! Queues for people.

use crate::output::{table, text};
use chiptide_api::queue::{QueueUseView, QueueView};

/// A row a queue for chips of all classes, and one for each class in which it has a say.
pub(crate) fn queues(queues: &[QueueView]) -> String {
    let mut rows = table(&[
        "QUEUE",
        "PARENT",
        "CLASS",
        "GUARANTEED",
        "LIMIT",
        "USED",
        "BORROWED",
        "LENT",
        "WEIGHT",
        "SHARE",
        "PENDING",
    ]);
    for queue in queues {
        let share = format!("{:.1}%", queue.share * 100.0);
        let (weight, pending) = (queue.weight.to_string(), queue.pending.to_string());
        let parent = queue.parent.clone().unwrap_or_default();
        let start = [queue.name.clone(), parent, "*".into()];
        rows.add_row(start.into_iter().chain(amounts(&queue.normalised)).chain([weight, share, pending]));
        for class in queue.classes.iter().filter(|class| says_something(&class.chips)) {
            let start = [String::new(), String::new(), class.device_class.clone()];
            rows.add_row(start.into_iter().chain(amounts(&class.chips)));
        }
    }
    text(&rows)
}

fn says_something(chips: &QueueUseView) -> bool {
    chips.limit.is_some() || chips.guaranteed > 0.0
}

fn amounts(chips: &QueueUseView) -> [String; 5] {
    let number = |chips: f64| format!("{chips:.2}").trim_end_matches('0').trim_end_matches('.').to_owned();
    [
        number(chips.guaranteed),
        chips.limit.map_or("-".into(), number),
        number(chips.used),
        number(chips.borrowed),
        number(chips.lent),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn a_queue_is_a_row_and_its_quota_by_class_another() {
        let chips = |guaranteed: f64, used: f64| json!({"guaranteed": guaranteed, "used": used, "leaving": 0.0, "borrowed": 0.0, "lent": (guaranteed - used).max(0.0)});
        let mut class = chips(4.0, 2.5);
        class["device_class"] = "nvidia-h20".into();
        class["limit"] = 8.0.into();
        class["recent"] = 1.0.into();
        let queues: Vec<QueueView> = serde_json::from_value(json!([{
            "name": "ads", "parent": "team", "takes_jobs": true, "weight": 2, "share": 0.125, "pending": 3,
            "normalised": chips(0.0, 2.5), "classes": [class]
        }]))
        .expect("queues");
        expect![[r#"
            QUEUE  PARENT  CLASS       GUARANTEED  LIMIT  USED  BORROWED  LENT  WEIGHT  SHARE  PENDING
            ads    team    *           0           -      2.5   0         0     2       12.5%  3
                           nvidia-h20  4           8      2.5   0         1.5
        "#]]
        .assert_eq(&super::queues(&queues));
    }
}
