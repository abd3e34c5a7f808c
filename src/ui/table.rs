//! Tables in Docker's layout: left-aligned columns, upper-case heads. The widths follow Go's `tabwriter`, so
//! that what parses the output of Docker parses this.

/// How wide columns are.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// The least width of a column, what separates it from the next one included.
    least: usize,
    /// Between the longest cell of a column and the next column.
    gap: usize,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    layout: Layout,
}

impl Table {
    /// A table with these heads, as `docker ps` lays it out.
    pub fn new<const N: usize>(heads: [&str; N]) -> Self {
        Self {
            rows: vec![heads.map(str::to_owned).to_vec()],
            layout: Layout { least: 10, gap: 3 },
        }
    }

    /// As `docker compose ls` lays it out.
    #[must_use]
    pub fn wide(mut self) -> Self {
        self.layout = Layout { least: 20, gap: 3 };
        self
    }

    /// As `docker compose top` lays it out.
    #[must_use]
    pub fn narrow(mut self) -> Self {
        self.layout = Layout { least: 4, gap: 2 };
        self
    }

    /// Of lines whose cells end with tabs, the last one with the line: how wide a column is is found anew
    /// where a line without it comes in between.
    pub fn of_lines(text: &str) -> Self {
        Self {
            rows: text
                .lines()
                .map(|line| line.split('\t').map(str::to_owned).collect())
                .collect(),
            layout: Layout { least: 10, gap: 3 },
        }
    }

    /// More heads, where they are not known beforehand.
    pub fn head(&mut self, heads: impl IntoIterator<Item = String>) {
        if let Some(first) = self.rows.first_mut() {
            first.extend(heads);
        }
    }

    /// One more row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Its lines. The last cell of a row is not padded.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new(); self.rows.len()];
        self.write(0, 0, self.rows.len(), &mut lines);
        lines
    }

    /// Writes the rows `from..to` from this column on.
    fn write(&self, column: usize, from: usize, to: usize, lines: &mut [String]) {
        // Whether the row has a cell here that another one follows.
        let is_padded = |row: usize| self.rows.get(row).is_some_and(|r| r.len() > column + 1);
        let cell = |row: usize| {
            let cells = self.rows.get(row);
            cells
                .and_then(|cells| cells.get(column))
                .map_or("", String::as_str)
        };
        let mut row = from;
        while row < to {
            if !is_padded(row) {
                if let Some(line) = lines.get_mut(row) {
                    line.push_str(cell(row));
                }
                row += 1;
                continue;
            }
            let end = (row..to).find(|row| !is_padded(*row)).unwrap_or(to);
            let longest = (row..end).map(|row| cell(row).chars().count()).max();
            let width = (longest.unwrap_or(0) + self.layout.gap).max(self.layout.least);
            for each in row..end {
                if let Some(line) = lines.get_mut(each) {
                    let text = cell(each);
                    line.push_str(text);
                    line.extend(std::iter::repeat_n(' ', width - text.chars().count()));
                }
            }
            self.write(column + 1, row, end, lines);
            row = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_in_docker() {
        let mut table = Table::new(["NAME", "IMAGE", "PORTS"]);
        table.row(["a-long-name-1", "x", ""].map(str::to_owned));
        assert_eq!(
            table.lines(),
            [
                "NAME            IMAGE     PORTS",
                "a-long-name-1   x         "
            ]
        );
    }

    #[test]
    fn a_line_without_a_column_ends_it() {
        let table = Table::of_lines("aaaaaaaaaaaa\tb\nx\nc\td");
        assert_eq!(table.lines(), ["aaaaaaaaaaaa   b", "x", "c         d"]);
    }
}
