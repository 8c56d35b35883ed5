import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;

/**
 * What a BI tool does over JDBC: it looks for catalogs, schemas, tables and columns, and then asks.
 *
 * <p>{@code java Walk.java FILE}: a line of the file is a URL of JDBC, or a statement for the connection that was opened
 * last. Writes lines of cells, with tabs between them; the first cell says what the line is about.
 */
public final class Walk {
    private Walk() {}

    public static void main(String[] arguments) throws Exception {
        Connection connection = null;
        for (String line : Files.readAllLines(Path.of(arguments[0]), StandardCharsets.UTF_8)) {
            if (line.startsWith("jdbc:")) {
                if (connection != null) {
                    connection.close();
                }
                connection = opened(line);
            } else if (connection != null) {
                ask(connection, line);
            }
        }
        if (connection != null) {
            connection.close();
        }
    }

    private static Connection opened(String url) {
        say("connection");
        try {
            Connection connection = DriverManager.getConnection(url);
            browse(connection.getMetaData());
            return connection;
        } catch (SQLException error) {
            say("refused", reason(error));
            return null;
        }
    }

    private static void browse(DatabaseMetaData about) throws SQLException {
        say("product", about.getDatabaseProductName(), about.getIdentifierQuoteString(), about.isReadOnly());
        say("valid", about.getConnection().isValid(5));
        each(about.getCatalogs(), "catalog", "TABLE_CAT");
        each(about.getSchemas(), "schema", "TABLE_CATALOG", "TABLE_SCHEM");
        each(about.getTableTypes(), "type", "TABLE_TYPE");
        each(about.getTables(null, null, "%", null), "table", "TABLE_CAT", "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE");
        each(about.getTables("insight", "METRICS", "revenue%", new String[] {"TABLE"}), "found", "TABLE_NAME");
        each(about.getColumns(null, "METRICS", "%", "%"),
            "column", "TABLE_NAME", "COLUMN_NAME", "TYPE_NAME", "IS_NULLABLE", "ORDINAL_POSITION", "REMARKS");
        each(about.getPrimaryKeys(null, "METRICS", "ALL"), "key", "COLUMN_NAME");
        each(about.getImportedKeys(null, "METRICS", "ALL"), "key", "FKCOLUMN_NAME");
        try {
            each(about.getTypeInfo(), "typeinfo", "TYPE_NAME");
        } catch (SQLException error) {
            say("no typeinfo", reason(error));
        }
    }

    private static void ask(Connection connection, String statement) {
        say("statement");
        try (Statement plain = connection.createStatement(); ResultSet rows = plain.executeQuery(statement)) {
            show("row", rows);
        } catch (SQLException error) {
            say("error", reason(error));
        }
        try (PreparedStatement prepared = connection.prepareStatement(statement)) {
            for (int time = 0; time < 2; time++) {
                try (ResultSet rows = prepared.executeQuery()) {
                    show("prepared row", rows);
                }
            }
        } catch (SQLException error) {
            say("prepared error", reason(error));
        }
    }

    private static void show(String kind, ResultSet rows) throws SQLException {
        ResultSetMetaData about = rows.getMetaData();
        Object[] names = new Object[about.getColumnCount()];
        Object[] types = new Object[names.length];
        for (int column = 0; column < names.length; column++) {
            names[column] = about.getColumnLabel(column + 1);
            types[column] = about.getColumnTypeName(column + 1);
        }
        say(kind.replace("row", "names"), names);
        say(kind.replace("row", "types"), types);
        while (rows.next()) {
            Object[] cells = new Object[names.length];
            for (int column = 0; column < names.length; column++) {
                cells[column] = rows.getObject(column + 1);
            }
            say(kind, cells);
        }
    }

    private static void each(ResultSet rows, String kind, String... columns) throws SQLException {
        try (rows) {
            while (rows.next()) {
                Object[] cells = new Object[columns.length];
                for (int column = 0; column < columns.length; column++) {
                    cells[column] = rows.getObject(columns[column]);
                }
                say(kind, cells);
            }
        }
    }

    /** What is wrong, the reasons of the reason included: the driver hides some of them. */
    private static String reason(Throwable error) {
        return error.getMessage() + (error.getCause() == null ? "" : ": " + reason(error.getCause()));
    }

    private static void say(String kind, Object... cells) {
        List<String> texts = new java.util.ArrayList<>(List.of(kind));
        for (Object cell : cells) {
            texts.add(String.valueOf(cell).replace('\t', ' ').replace('\n', ' '));
        }
        System.out.println(String.join("\t", texts));
    }
}
