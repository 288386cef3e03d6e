//! What goes wrong: crashes, power cuts, partitions, slow links, clocks that jump; and how it all ends.

use crate::clock::{HOUR, MILLI, MINUTE, SECOND, WallClock};
use crate::world::{Event, World};

impl World {
    /// One fault, and the plan of the next.
    pub fn fault(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let next = self.chance.between(SECOND, 15 * SECOND);
        self.after(next, Event::Fault);
        let machine = self.chance.below(self.agents.len() as u64) as usize;
        match self.chance.below(12) {
            0 => self.crash_for_a_while(machine),
            1 => {
                self.stop_in_order(machine);
                self.return_later(machine);
            }
            2 => {
                self.cut_power(machine);
                self.return_later(machine);
            }
            3 if self.chance.one_in(4) => {
                for machine in 0..self.agents.len() {
                    self.cut_power(machine);
                    self.return_later(machine);
                }
            }
            3 | 4 => self.partition(),
            5 => {
                self.say(|| format!("machine {machine} gets slow links"));
                self.network.slow(machine);
            }
            6 | 7 => {
                self.say(|| "all links heal".to_owned());
                self.network.heal();
            }
            8 | 9 => self.jump_clock(machine),
            10 => {
                if let Some(leader) = self.log.leader.filter(|leader| self.agents[*leader].up) {
                    self.crash_for_a_while(leader);
                }
            }
            _ => {
                // The leader seems gone to the others, and is not.
                let able: Vec<usize> = (0..self.managers.len()).filter(|m| self.has_quorum(*m)).collect();
                if let Some(next) = self.chance.pick(&able).copied().filter(|next| self.log.leader != Some(*next)) {
                    self.forced = Some(next);
                }
            }
        }
    }

    fn crash_for_a_while(&mut self, machine: usize) {
        self.crash(machine);
        self.return_later(machine);
    }

    fn return_later(&mut self, machine: usize) {
        let away = self.chance.delay(10 * SECOND, 90 * SECOND);
        self.after(away, Event::Start { machine });
    }

    fn partition(&mut self) {
        let all = self.agents.len();
        let one_way = self.chance.one_in(3);
        let alone = self.chance.one_in(2).then(|| self.chance.below(all as u64) as usize);
        let mut side: Vec<bool> = (0..all).map(|_| self.chance.one_in(3)).collect();
        if let Some(alone) = alone {
            side = (0..all).map(|machine| machine == alone).collect();
        }
        self.say(|| format!("partition, one-way {one_way}: {side:?}"));
        for from in 0..all {
            for to in 0..all {
                if side[from] != side[to] && (!one_way || side[from]) {
                    self.network.cut(from, to);
                }
            }
        }
    }

    /// Agent and manager of a machine share its clock.
    fn jump_clock(&mut self, machine: usize) {
        let ahead = match self.chance.below(4) {
            0 => 0,
            1 => self.chance.below(2 * SECOND) as i64 - SECOND as i64,
            2 => self.chance.below(10 * MINUTE) as i64 - 5 * MINUTE as i64,
            _ => self.chance.below(12 * HOUR) as i64 - 6 * HOUR as i64,
        };
        self.say(|| format!("clock of machine {machine} is {} s ahead", ahead / SECOND as i64));
        self.set_clock(machine, WallClock { ahead });
    }

    fn set_clock(&mut self, machine: usize, wall: WallClock) {
        self.agents[machine].wall = wall;
        if let Some(manager) = self.managers.get_mut(machine) {
            manager.wall = wall;
        }
    }

    /// Everything is repaired but the clocks: those stay as wrong as they are, and jump no more.
    pub fn heal(&mut self) {
        self.say(|| "everything heals".to_owned());
        self.healed = Some(self.now);
        self.network.heal();
        for machine in 0..self.agents.len() {
            let soon = self.chance.between(100 * MILLI, 5 * SECOND);
            self.after(soon, Event::Start { machine });
        }
        // Half of the time somebody sets them right, which for many is a jump back.
        if self.chance.one_in(2) {
            for machine in 0..self.agents.len() {
                self.set_clock(machine, WallClock::default());
            }
        }
    }
}
