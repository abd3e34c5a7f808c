//! Where boxes and edges go: a layered layout from left to right, for graphs without cycles.
//!
//! Ranks by longest paths, waypoints where an edge spans several ranks, fewer crossings by barycentres, then
//! positions that keep the order and are as near to their neighbours as it allows. Knows nothing of services;
//! units are those of the drawing.

use std::collections::BTreeMap;

/// Between boxes of a column.
const GAP: i64 = 22;

/// Above and below an edge that passes a column.
const PASS: i64 = 10;

/// Between columns, where edges turn.
const LANE: i64 = 84;

/// How often the order and the positions are improved.
const SWEEPS: usize = 12;

/// A box to place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: i64,
    pub(super) height: i64,
}

/// A box in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) x: i64,
    pub(super) y: i64,
    /// As wide as all boxes of its column.
    pub(super) width: i64,
    pub(super) height: i64,
}

impl Place {
    pub(super) fn middle(&self) -> i64 {
        self.y + self.height / 2
    }
}

/// Where an edge passes a column between its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) left: i64,
    pub(super) right: i64,
    pub(super) y: i64,
}

/// The picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// By the number of the box.
    pub(super) places: Vec<Place>,
    /// By the number of the edge.
    pub(super) passes: Vec<Vec<Pass>>,
    pub(super) width: i64,
    pub(super) height: i64,
}

/// Places boxes; an edge is a pair of their numbers.
pub(super) fn lay_out(sizes: &[Size], edges: &[(usize, usize)]) -> Layout {
    let is_tied = |number: usize| edges.iter().any(|(a, b)| *a == number || *b == number);
    let (tied, loose): (Vec<usize>, Vec<usize>) =
        (0..sizes.len()).partition(|number| is_tied(*number));
    let mut layers = Layers::of(sizes, edges, &tied);
    layers.reduce_crossings();
    layers.position();
    let mut layout = layers.draw(sizes.len(), edges.len());
    grid(sizes, &loose, &mut layout);
    layout
}

/// A box or a waypoint.
#[derive(Clone, Copy, Debug)]
struct Vertex {
    rank: usize,
    size: Size,
    what: What,
    /// Its middle.
    y: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Box(usize),
    Waypoint { edge: usize },
}

#[derive(Clone, Debug, Default)]
struct Layers {
    vertices: Vec<Vertex>,
    /// Vertices of each rank, from top to bottom.
    ranks: Vec<Vec<usize>>,
    /// Neighbours one rank to the left, by vertex.
    left: Vec<Vec<usize>>,
    /// Neighbours one rank to the right, by vertex.
    right: Vec<Vec<usize>>,
}

impl Layers {
    fn of(sizes: &[Size], edges: &[(usize, usize)], tied: &[usize]) -> Self {
        let rank = ranks(sizes.len(), edges);
        let mut layers = Self::default();
        let mut vertex_of = BTreeMap::new();
        for number in tied {
            let (Some(size), Some(rank)) = (sizes.get(*number), rank.get(*number)) else {
                continue;
            };
            vertex_of.insert(*number, layers.add(*rank, *size, What::Box(*number)));
        }
        for (edge, (from, to)) in edges.iter().enumerate() {
            let (Some(from), Some(to)) = (vertex_of.get(from), vertex_of.get(to)) else {
                continue;
            };
            let mut last = *from;
            let rank_of = |vertex: usize| layers.vertices.get(vertex).map_or(0, |v| v.rank);
            for rank in rank_of(*from) + 1..rank_of(*to) {
                let size = Size {
                    width: 0,
                    height: 0,
                };
                let waypoint = layers.add(rank, size, What::Waypoint { edge });
                layers.tie(last, waypoint);
                last = waypoint;
            }
            layers.tie(last, *to);
        }
        layers
    }

    fn add(&mut self, rank: usize, size: Size, what: What) -> usize {
        let vertex = self.vertices.len();
        self.vertices.push(Vertex {
            rank,
            size,
            what,
            y: 0,
        });
        self.left.push(Vec::new());
        self.right.push(Vec::new());
        while self.ranks.len() <= rank {
            self.ranks.push(Vec::new());
        }
        if let Some(members) = self.ranks.get_mut(rank) {
            members.push(vertex);
        }
        vertex
    }

    fn tie(&mut self, from: usize, to: usize) {
        if let Some(right) = self.right.get_mut(from) {
            right.push(to);
        }
        if let Some(left) = self.left.get_mut(to) {
            left.push(from);
        }
    }

    fn order(&self) -> Vec<i64> {
        let mut order = vec![0; self.vertices.len()];
        for members in &self.ranks {
            for (position, vertex) in (0..).zip(members) {
                if let Some(place) = order.get_mut(*vertex) {
                    *place = position;
                }
            }
        }
        order
    }

    /// Sweeps to and fro; the order with the fewest crossings is kept.
    fn reduce_crossings(&mut self) {
        let mut best = (self.crossings(), self.ranks.clone());
        for sweep in 0..SWEEPS {
            let count = self.ranks.len();
            for step in 0..count {
                let to_the_right = sweep % 2 == 0;
                let rank = if to_the_right { step } else { count - 1 - step };
                let order = self.order();
                let towards = if to_the_right {
                    &self.left
                } else {
                    &self.right
                };
                if let Some(members) = self.ranks.get_mut(rank) {
                    members.sort_by_key(|vertex| {
                        let near = towards.get(*vertex).map_or(&[][..], Vec::as_slice);
                        mean(near.iter().filter_map(|other| order.get(*other)), 1000)
                            .or_else(|| order.get(*vertex).map(|place| place * 1000))
                    });
                }
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.ranks.clone());
            }
        }
        self.ranks = best.1;
    }

    fn crossings(&self) -> usize {
        let order = self.order();
        let place = |vertex: usize| order.get(vertex).copied().unwrap_or_default();
        let mut crossings = 0;
        for members in &self.ranks {
            let mut segments: Vec<(i64, i64)> = members
                .iter()
                .flat_map(|from| {
                    let right = self.right.get(*from).map_or(&[][..], Vec::as_slice);
                    right.iter().map(move |to| (place(*from), place(*to)))
                })
                .collect();
            segments.sort_unstable();
            for (index, (from, to)) in segments.iter().enumerate() {
                crossings += segments
                    .iter()
                    .skip(index + 1)
                    .filter(|(other_from, other_to)| other_from > from && other_to < to)
                    .count();
            }
        }
        crossings
    }

    /// Gives every vertex its height in the picture.
    fn position(&mut self) {
        for members in &self.ranks {
            let mut y = 0;
            for vertex in members {
                if let Some(vertex) = self.vertices.get_mut(*vertex) {
                    y += vertex.half() + vertex.gap();
                    vertex.y = y;
                    y += vertex.half() + vertex.gap();
                }
            }
        }
        for sweep in 0..2 * SWEEPS {
            let count = self.ranks.len();
            for step in 0..count {
                let rank = if sweep % 2 == 0 {
                    step
                } else {
                    count - 1 - step
                };
                self.settle(rank);
            }
        }
        let top = self.vertices.iter().map(|v| v.y - v.half()).min();
        for vertex in &mut self.vertices {
            vertex.y -= top.unwrap_or_default();
        }
    }

    /// Moves the vertices of a rank to where their neighbours are, as far as order and distance allow.
    fn settle(&mut self, rank: usize) {
        let Some(members) = self.ranks.get(rank) else {
            return;
        };
        let mut wishes = Vec::new();
        let mut offset = 0;
        let mut before: Option<Vertex> = None;
        for number in members {
            let Some(vertex) = self.vertices.get(*number) else {
                continue;
            };
            if let Some(before) = before {
                offset += before.half() + before.gap().max(vertex.gap()) + vertex.half();
            }
            before = Some(*vertex);
            let near = [&self.left, &self.right];
            let near = near
                .iter()
                .filter_map(|side| side.get(*number))
                .flatten()
                .filter_map(|other| self.vertices.get(*other))
                .map(|other| &other.y);
            let wish = mean(near, 1).unwrap_or(vertex.y);
            wishes.push((wish - offset, offset));
        }
        let found = isotonic(&wishes.iter().map(|(wish, _)| *wish).collect::<Vec<_>>());
        for ((number, (_, offset)), y) in members.iter().zip(&wishes).zip(found) {
            if let Some(vertex) = self.vertices.get_mut(*number) {
                vertex.y = y + offset;
            }
        }
    }

    fn draw(&self, boxes: usize, edges: usize) -> Layout {
        let nowhere = Place {
            x: 0,
            y: 0,
            width: 0,
            height: 0,
        };
        let mut layout = Layout {
            places: vec![nowhere; boxes],
            passes: vec![Vec::new(); edges],
            ..Layout::default()
        };
        let mut x = 0;
        for members in &self.ranks {
            let own = || {
                members
                    .iter()
                    .filter_map(|number| self.vertices.get(*number))
            };
            let width = own().map(|vertex| vertex.size.width).max().unwrap_or(0);
            for vertex in own() {
                layout.height = layout
                    .height
                    .max(vertex.y - vertex.half() + vertex.size.height);
                match vertex.what {
                    What::Box(number) => {
                        if let Some(place) = layout.places.get_mut(number) {
                            *place = Place {
                                x,
                                y: vertex.y - vertex.half(),
                                width,
                                height: vertex.size.height,
                            };
                        }
                    }
                    What::Waypoint { edge } => {
                        if let Some(passes) = layout.passes.get_mut(edge) {
                            passes.push(Pass {
                                left: x,
                                right: x + width,
                                y: vertex.y,
                            });
                        }
                    }
                }
            }
            layout.width = x + width;
            x += width + LANE;
        }
        layout
    }
}

impl Vertex {
    fn half(&self) -> i64 {
        self.size.height / 2
    }

    fn gap(&self) -> i64 {
        match self.what {
            What::Box(_) => GAP,
            What::Waypoint { .. } => PASS,
        }
    }
}

/// The mean in parts of `unit`.
fn mean<'a>(values: impl Iterator<Item = &'a i64>, unit: i64) -> Option<i64> {
    let (sum, count) = values.fold((0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum * unit / count)
}

/// The longest way from a box that no edge leads to; then such boxes move towards what they lead to.
fn ranks(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut rank = vec![0_usize; count];
    // As many rounds as a path can be long: a cycle, which cannot be, would end here, too.
    for _ in 0..count {
        let mut settled = true;
        for (from, to) in edges {
            let least = rank.get(*from).map_or(0, |rank| rank + 1);
            if let Some(rank) = rank.get_mut(*to)
                && *rank < least
            {
                *rank = least;
                settled = false;
            }
        }
        if settled {
            break;
        }
    }
    for _ in 0..count {
        let mut settled = true;
        for number in 0..count {
            let led_to = edges.iter().filter(|(_, to)| *to == number).count();
            let nearest = edges
                .iter()
                .filter(|(from, _)| *from == number)
                .filter_map(|(_, to)| rank.get(*to).copied())
                .collect::<Vec<_>>();
            let Some(most) = nearest.iter().min().map(|rank| rank.saturating_sub(1)) else {
                continue;
            };
            if let Some(rank) = rank.get_mut(number)
                && *rank < most
                && led_to < nearest.len()
            {
                *rank = most;
                settled = false;
            }
        }
        if settled {
            break;
        }
    }
    rank
}

/// The ascending values that are nearest to the given ones by least squares: pool adjacent violators.
fn isotonic(wishes: &[i64]) -> Vec<i64> {
    let mut pools: Vec<(i64, i64)> = Vec::new();
    for wish in wishes {
        let mut pool = (*wish, 1);
        while let Some((sum, count)) = pools.last().copied() {
            if sum * pool.1 <= pool.0 * count {
                break;
            }
            pools.pop();
            pool = (pool.0 + sum, pool.1 + count);
        }
        pools.push(pool);
    }
    pools
        .into_iter()
        .flat_map(|(sum, count)| (0..count).map(move |_| sum.div_euclid(count)))
        .collect()
}

/// Puts boxes without edges below the rest, row by row.
fn grid(sizes: &[Size], loose: &[usize], layout: &mut Layout) {
    let size = |number: &usize| sizes.get(*number).copied();
    let Some(width) = loose.iter().filter_map(size).map(|size| size.width).max() else {
        return;
    };
    // About as wide as the rest; alone, about as wide as high.
    let columns = if layout.width > 0 {
        ((layout.width + GAP) / (width + GAP)).max(1)
    } else {
        i64::try_from((loose.len() / 3).isqrt()).unwrap_or(1).max(1)
    };
    let columns = usize::try_from(columns).unwrap_or(1);
    let mut y = if layout.height > 0 {
        layout.height + 2 * GAP
    } else {
        0
    };
    for row in loose.chunks(columns) {
        let height = row.iter().filter_map(size).map(|size| size.height).max();
        let mut x = 0;
        for number in row {
            if let (Some(place), Some(size)) = (layout.places.get_mut(*number), size(number)) {
                *place = Place {
                    x,
                    y,
                    width,
                    height: size.height,
                };
                layout.width = layout.width.max(x + width);
                layout.height = layout.height.max(y + size.height);
            }
            x += width + GAP;
        }
        y += height.unwrap_or_default() + GAP;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: Size = Size {
        width: 100,
        height: 40,
    };

    #[test]
    fn a_chain_is_a_straight_line() {
        let layout = lay_out(&[SIZE; 3], &[(0, 1), (1, 2)]);
        assert_eq!(
            layout.places.iter().map(|p| p.y).collect::<Vec<_>>(),
            [0; 3]
        );
        assert!(layout.places.windows(2).all(|pair| pair[0].x < pair[1].x));
    }

    #[test]
    fn two_edges_that_need_not_cross_do_not() {
        let layout = lay_out(&[SIZE; 4], &[(0, 3), (1, 2)]);
        let above = |a: usize, b: usize| layout.places[a].y < layout.places[b].y;
        assert_eq!(above(0, 1), above(3, 2));
    }

    #[test]
    fn an_edge_over_several_ranks_passes_the_boxes_between() {
        let layout = lay_out(&[SIZE; 4], &[(0, 1), (1, 2), (2, 3), (0, 3)]);
        assert_eq!(layout.passes[3].len(), 2);
        for pass in &layout.passes[3] {
            let hit = layout.places.iter().any(|place| {
                place.x == pass.left && (place.y..=place.y + place.height).contains(&pass.y)
            });
            assert!(!hit, "{layout:?}");
        }
    }

    #[test]
    fn ascending_values_stay_as_they_are() {
        assert_eq!(isotonic(&[1, 2, 7]), [1, 2, 7]);
        assert_eq!(isotonic(&[5, 1, 9]), [3, 3, 9]);
        assert_eq!(isotonic(&[3, 2, 1]), [2, 2, 2]);
    }

    proptest! {
        #[test]
        fn boxes_do_not_overlap(
            heights in proptest::collection::vec(20_i64..200, 1..20),
            edges in proptest::collection::vec((0_usize..20, 0_usize..20), 0..40),
        ) {
            let sizes: Vec<Size> = heights.iter().map(|height| Size { width: 80 + height, height: *height }).collect();
            let edges: Vec<(usize, usize)> = edges
                .into_iter()
                .map(|(a, b)| (a.min(b), a.max(b)))
                .filter(|(a, b)| a != b && *b < sizes.len())
                .collect();
            let layout = lay_out(&sizes, &edges);
            for (index, a) in layout.places.iter().enumerate() {
                prop_assert!(a.x >= 0 && a.y >= 0, "{:?}", a);
                prop_assert!(a.x + a.width <= layout.width && a.y + a.height <= layout.height);
                for b in layout.places.iter().skip(index + 1) {
                    let apart = a.x + a.width <= b.x || b.x + b.width <= a.x
                        || a.y + a.height <= b.y || b.y + b.height <= a.y;
                    prop_assert!(apart, "{:?} {:?}", a, b);
                }
            }
            for (from, to) in &edges {
                prop_assert!(layout.places[*from].x < layout.places[*to].x);
            }
        }
    }
}
