//! Ratings of several players from comparisons of two: Bradley-Terry strengths on Elo's scale.
//!
//! # Source
//! Bradley and Terry 1952; the iteration is Hunter's 2004 ("MM algorithms for generalized Bradley-Terry models", Equation 3).
//! Chatbot Arena reports the same strengths as 400·log10, with bootstrap intervals.

use serde::Serialize;
use votive_tensor::random::{Draws, Stream};

const RESAMPLES: u64 = 500;
/// Points that make the odds 10 to 1.
const SCALE: f64 = 400.0;
/// Games that everybody is taken to have drawn with an average player, so that whoever won or lost all has a rating.
const PRIOR_GAMES: f64 = 0.1;

/// A comparison of two players.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Game {
    /// The first player.
    pub first: usize,
    /// The second player.
    pub second: usize,
    /// Share of the game that the first wins: 1, 0, or between.
    pub score: f64,
}

/// A player's rating with its 95 % interval, 0 on average over players.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rating {
    /// 400·log10 of the Bradley-Terry strength.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Games.
    pub n: usize,
}

/// Rates players 0 to `players` − 1; games of others, or of a player with itself, are left out. The interval is a percentile
/// bootstrap over games.
#[must_use]
pub fn ratings(players: usize, games: &[Game], seed: u64) -> Vec<Rating> {
    let counts = |game: &&Game| game.first != game.second && game.first.max(game.second) < players;
    let games: Vec<Game> = games.iter().filter(counts).copied().collect();
    let values = strengths(players, &games);
    let mut resampled: Vec<Vec<f64>> = vec![Vec::new(); players];
    for i in 0..if games.is_empty() { 0 } else { RESAMPLES } {
        let mut draws = Draws::new(seed, Stream::Bootstrap, i, 2);
        let drawn: Vec<Game> = (0..games.len()).map(|_| games[draws.below(games.len())]).collect();
        for (all, value) in resampled.iter_mut().zip(strengths(players, &drawn)) {
            all.push(value);
        }
    }
    let rating = |(player, value): (usize, &f64)| {
        let all = &mut resampled[player];
        all.sort_by(f64::total_cmp);
        let at = |share: f64| all.get((share * RESAMPLES as f64) as usize).copied().unwrap_or(*value);
        let n = games.iter().filter(|game| game.first == player || game.second == player).count();
        Rating { value: *value, low: at(0.025), high: at(0.975), n }
    };
    values.iter().enumerate().map(rating).collect()
}

/// 400·log10 of every player's strength, 0 on average.
fn strengths(players: usize, games: &[Game]) -> Vec<f64> {
    let mut won = vec![PRIOR_GAMES / 2.0; players];
    let mut met = vec![vec![0.0; players]; players];
    for game in games {
        won[game.first] += game.score;
        won[game.second] += 1.0 - game.score;
        met[game.first][game.second] += 1.0;
        met[game.second][game.first] += 1.0;
    }
    let mut strength = vec![1.0_f64; players];
    for _ in 0..10_000 {
        let next = |player: usize| {
            let own = strength[player];
            let against = met[player].iter().zip(&strength).map(|(games, other)| games / (own + other));
            won[player] / (against.sum::<f64>() + PRIOR_GAMES / (own + 1.0))
        };
        let mut new: Vec<f64> = (0..players).map(next).collect();
        let mean = new.iter().map(|value| value.ln()).sum::<f64>() / players.max(1) as f64;
        new.iter_mut().for_each(|value| *value /= mean.exp());
        let moved = new.iter().zip(&strength).map(|(new, old)| (new / old).ln().abs()).fold(0.0, f64::max);
        strength = new;
        if moved < 1e-10 {
            break;
        }
    }
    strength.iter().map(|value| SCALE * value.log10()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn games(first: usize, second: usize, won: usize, of: usize) -> impl Iterator<Item = Game> {
        (0..of).map(move |i| Game { first, second, score: if i < won { 1.0 } else { 0.0 } })
    }

    #[test]
    fn strengths_are_found_again() {
        // 1 to 3 to 9: odds of 3 between neighbours, of 9 between the ends.
        let all: Vec<Game> =
            games(1, 0, 3000, 4000).chain(games(2, 1, 3000, 4000)).chain(games(2, 0, 3600, 4000)).collect();
        let found = ratings(3, &all, 1);
        let step = 400.0 * 3.0_f64.log10();
        for (rating, expected) in found.iter().zip([-step, 0.0, step]) {
            assert!((rating.value - expected).abs() < 1.0, "{found:?}");
            assert!(
                rating.low < expected && rating.high > expected && rating.high - rating.low < 30.0,
                "{rating:?}"
            );
        }
    }

    #[test]
    fn whoever_wins_all_has_a_rating_and_who_plays_none_an_average_one() {
        let found = ratings(3, &games(0, 1, 20, 20).collect::<Vec<_>>(), 1);
        assert!(found[0].value.is_finite() && found[0].value > 300.0 && found[1].value < -300.0, "{found:?}");
        assert_eq!((found[2].n, found[0].n), (0, 20));
        assert!(ratings(0, &[], 1).is_empty());
    }

    #[test]
    fn a_tie_is_half_a_win_for_both() {
        let all: Vec<Game> = (0..50).map(|_| Game { first: 0, second: 1, score: 0.5 }).collect();
        assert!(ratings(2, &all, 1).iter().all(|rating| rating.value.abs() < 1e-6));
    }
}
