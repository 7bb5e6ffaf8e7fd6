//! x
use chiptide_protocol::{ablations, explore::*, properties, rules::*, world::*};
fn main() {
    let flags: Vec<String> = std::env::args().skip(1).collect();
    let has = |f: &str| flags.iter().any(|x| x == f);
    if has("ablations") {
        for a in ablations::ALL {
            let t = std::time::Instant::now();
            let o = a.explore();
            println!(
                "{:30} {:20} {:7} {} {:?} {:.1?}",
                a.name(),
                a.world,
                o.states,
                if o.whole { "whole" } else { "part" },
                o.lost.as_ref().map(|(p, w)| (&p[..2], w.len())),
                t.elapsed()
            );
        }
        return;
    }
    let b = Bounds {
        two_gangs: has("two"),
        leaders: has("leaders"),
        crashes: has("crashes"),
        wipes: has("wipes"),
        reboots: has("reboots"),
        late_registrations: has("late"),
        ends: has("ends"),
        silence: has("silence"),
        delays: has("delays"),
        failover: has("failover"),
    };
    let off: Vec<Rule> = Rule::ALL.iter().copied().filter(|r| has(r.label())).collect();
    let mut p = Protocol::without(&off, b);
    p.symmetric = !has("places");
    let t = std::time::Instant::now();
    let end = End::<Protocol> { is_end: &properties::is_over, counts: &|a| !a.is_fault() };
    match explore(&p, 3_000_000, Some(&end)) {
        None => println!("too many {:?}", t.elapsed()),
        Some(e) => {
            println!("{} states {} steps furthest {} {:?}", e.states, e.steps, e.furthest, t.elapsed());
            if let Some((n, w)) = &e.violation {
                println!("VIOLATION {n} in {}", w.len());
                for a in w {
                    println!("  {a:?}");
                }
            }
            if let Some(w) = &e.stuck {
                println!("STUCK in {}", w.len());
                for a in w {
                    println!("  {a:?}");
                }
            }
        }
    }
}
