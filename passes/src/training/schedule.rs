//! Learning rates over the steps of a training.

/// How the learning rate goes on behind the warm-up.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Shape {
    /// It stays.
    Constant,
    /// Along a straight line to 0 at the end.
    Linear,
    /// Along half a cosine to 0 at the end (Loshchilov and Hutter, *SGDR*, 2017).
    Cosine,
    /// Multiplied by a factor after every so many steps.
    Steps {
        /// Steps from one factor to the next, at least 1.
        every: u64,
        /// The factor.
        factor: f64,
    },
}

/// A learning rate over time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    /// The rate behind the warm-up.
    pub base: f64,
    /// Steps in which it rises to that, along a straight line.
    pub warmup: u64,
    /// What comes after them.
    pub shape: Shape,
}

impl Schedule {
    /// The rate of step `step`, counted from 0, of `total`.
    pub fn rate(&self, step: u64, total: u64) -> f64 {
        if step < self.warmup {
            return self.base * (step + 1) as f64 / self.warmup as f64;
        }
        let done = (step - self.warmup) as f64 / total.saturating_sub(self.warmup).max(1) as f64;
        let done = done.min(1.0);
        self.base
            * match self.shape {
                Shape::Constant => 1.0,
                Shape::Linear => 1.0 - done,
                Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
                Shape::Steps { every, factor } => {
                    factor.powi(i32::try_from((step - self.warmup) / every.max(1)).unwrap_or(i32::MAX))
                }
            }
    }
}

/// A temperature that falls over time, `max(least, e^(-rate t))` in step t, and stays for some steps each time (Jang, Gu and Poole, 2017).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Annealing {
    /// How fast it falls, 1e-5 to 1e-4 or so.
    pub rate: f64,
    /// What it falls to.
    pub least: f64,
    /// Steps from one temperature to the next, at least 1.
    pub every: u64,
}

impl Annealing {
    /// The temperature of step `step`, counted from 0.
    pub fn temperature(&self, step: u64) -> f64 {
        let from = step - step % self.every.max(1);
        (-self.rate * from as f64).exp().max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperatures_fall_to_the_least() {
        let annealing = Annealing { rate: 0.1, least: 0.5, every: 3 };
        let temperatures: Vec<f64> =
            (0..10).map(|i| (annealing.temperature(i) * 1e4).round() / 1e4).collect();
        assert_eq!(temperatures, [1.0, 1.0, 1.0, 0.7408, 0.7408, 0.7408, 0.5488, 0.5488, 0.5488, 0.5]);
    }

    #[test]
    fn rates_rise_and_fall() {
        let rates = |warmup, shape, total: u64| -> Vec<f64> {
            let schedule = Schedule { base: 0.8, warmup, shape };
            (0..total).map(|i| (schedule.rate(i, total) * 1e6).round() / 1e6).collect()
        };
        assert_eq!(rates(0, Shape::Constant, 3), [0.8; 3]);
        assert_eq!(rates(2, Shape::Linear, 6), [0.4, 0.8, 0.8, 0.6, 0.4, 0.2]);
        assert_eq!(rates(0, Shape::Cosine, 4), [0.8, 0.682843, 0.4, 0.117157]);
        assert_eq!(rates(1, Shape::Steps { every: 2, factor: 0.5 }, 6), [0.8, 0.8, 0.8, 0.4, 0.4, 0.2]);
        assert_eq!(Schedule { base: 1.0, warmup: 5, shape: Shape::Cosine }.rate(9, 3), 0.0);
    }
}
