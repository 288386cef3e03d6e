//! Aligned columns, as Docker's tab writer lays them out: at least ten wide, three spaces between.

/// The narrowest column, its padding included.
const CELL_WIDTH_MIN: usize = 10;
const PADDING: usize = 3;

/// Every row has as many cells as the first. Spaces at the ends of lines are left out.
pub fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        (widest.unwrap_or(0) + PADDING).max(CELL_WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // A cell is one line, whatever an error message holds.
            let cell = cell.replace(['\n', '\r', '\t'], " ");
            line.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn columns_are_aligned_as_docker_aligns_them() {
        let rows = [
            ["ID", "NAME", "REPLICAS", "PORTS"],
            ["o11lxr2zy0vx", "demo_agent", "1/1", ""],
            ["yg4nblu8oss4", "démo_web", "3/2 (max 5 per node)", "*:8081->8080/tcp"],
        ];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect();
        expect![[r#"
            ID             NAME         REPLICAS               PORTS
            o11lxr2zy0vx   demo_agent   1/1
            yg4nblu8oss4   démo_web     3/2 (max 5 per node)   *:8081->8080/tcp
        "#]]
        .assert_eq(&render(&rows));
    }
}
