/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Tables and details for people, JSON for programs, from the same rows and columns. */

#include <ctype.h>
#include <stdio.h>

#include "basic/log.h"
#include "basic/strings.h"
#include "ctl/ctl.h"
#include "shared/json-field.h"

#define COLUMNS_MAX 16U

void property_to_member(const char *property, char *ret, size_t n) {
        size_t k = 0;

        for (const char *p = property; *p && k + 2 < n; p++) {
                bool starts_word = isupper((unsigned char) *p) && p > property &&
                                   islower((unsigned char) p[-1]);

                if (starts_word)
                        ret[k++] = '_';
                ret[k++] = (char) tolower((unsigned char) *p);
        }
        ret[k] = 0;
}

static char* words_to_cell(json_t *array) {
        _cleanup_free_ char *text = NULL;
        json_t *item;
        size_t i;

        json_array_foreach(array, i, item) {
                char *longer = strjoin(text ?: "", text ? " " : "", strempty(json_string_value(item)));

                free(text);
                text = longer;
                if (!text)
                        return NULL;
        }
        return escape_for_display(text, strlen(text));
}

char* table_cell(json_t *row, const Column *column) {
        json_t *value = json_object_get(row, column->property);
        char buffer[CONST_MAX(FORMAT_SIZE_LEN, FORMAT_TIME_LEN)];

        if (json_is_string(value)) {
                const char *s = json_string_value(value);

                return isempty(s) ? strdup("-") : escape_for_display(s, strlen(s));
        }
        if (json_is_boolean(value))
                return strdup(json_is_true(value) ? "yes" : "no");
        if (json_is_real(value))
                return asprintf_null("%.0f%%", json_real_value(value) * 100);
        if (json_is_object(value)) {
                _cleanup_free_ char *text = json_dumps(value, JSON_COMPACT);

                return json_object_size(value) == 0 ? strdup("-")
                       : text                       ? escape_for_display(text, strlen(text))
                                                    : NULL;
        }
        if (json_is_array(value) && json_array_size(value) > 0)
                return words_to_cell(value);
        if (!json_is_integer(value))
                return strdup("-");

        switch (column->kind) {
        case COLUMN_SIZE:
                return strdup(format_size(buffer, (uint64_t) json_integer_value(value)));
        case COLUMN_TIME:
                return json_integer_value(value) == 0
                                       ? strdup("-")
                                       : strdup(format_rfc3339(buffer,
                                                               (uint64_t) json_integer_value(value)));
        default:
                return asprintf_null("%" JSON_INTEGER_FORMAT, json_integer_value(value));
        }
}

static int row_to_json(json_t *row, const Column *columns, json_t **ret) {
        _cleanup_json_ json_t *object = json_object();
        char member[64];

        if (!object)
                return -ENOMEM;
        for (const Column *c = columns; c->property; c++) {
                json_t *value = json_object_get(row, c->property);

                property_to_member(c->property, member, sizeof(member));
                if (json_object_set(object, member, value ?: json_null()) < 0)
                        return -ENOMEM;
        }
        *ret = TAKE_PTR(object);
        return 0;
}

static int json_print(const CtlOptions *options, json_t *value) {
        size_t flags = options->output == OUTPUT_JSON_PRETTY ? JSON_INDENT(2) : JSON_COMPACT;

        if (json_dumpf(value, stdout, flags) < 0 || putchar('\n') == EOF)
                return log_error_errno(EIO, "Failed to write the output: %m");
        return 0;
}

static int rows_print_json(const CtlOptions *options, json_t *rows, const Column *columns) {
        _cleanup_json_ json_t *array = json_array();
        json_t *row;
        size_t i;
        int r;

        json_array_foreach(rows, i, row) {
                json_t *object = NULL;

                r = row_to_json(row, columns, &object);
                if (r < 0 || json_array_append_new(array, object) < 0)
                        return log_error_errno(r < 0 ? r : ENOMEM, "Failed to print: %m");
        }
        return json_print(options, array);
}

/* Cells right-aligned for numbers and sizes; no blanks at the end of a line. */
static void line_print(char *const *cells, const size_t *widths, const Column *columns, size_t n) {
        for (size_t k = 0; k < n; k++) {
                bool right = columns[k].kind == COLUMN_NUMBER || columns[k].kind == COLUMN_SIZE;

                if (right)
                        printf("%*s", (int) widths[k], cells[k]);
                else if (k + 1 == n)
                        printf("%s", cells[k]);
                else
                        printf("%-*s", (int) widths[k], cells[k]);
                putchar(k + 1 == n ? '\n' : ' ');
        }
}

int table_print(const CtlOptions *options, json_t *rows, const Column *columns, const char *noun) {
        char *titles[COLUMNS_MAX] = {};
        _cleanup_strv_ char **cells = NULL;
        size_t widths[COLUMNS_MAX], n = 0, n_rows = json_array_size(rows), i;
        json_t *row;

        if (options->output != OUTPUT_TABLE)
                return rows_print_json(options, rows, columns);

        for (; columns[n].property; n++) {
                assert(n < COLUMNS_MAX);
                titles[n] = (char *) columns[n].title;
                widths[n] = strlen(columns[n].title);
        }
        cells = calloc(n_rows * n + 1, sizeof(char *));
        if (!cells)
                return log_error_errno(ENOMEM, "Failed to print: %m");

        json_array_foreach(rows, i, row)
                for (size_t k = 0; k < n; k++) {
                        char *cell = table_cell(row, columns + k);

                        if (!cell)
                                return log_error_errno(ENOMEM, "Failed to print: %m");
                        cells[i * n + k] = cell;
                        widths[k] = MAX(widths[k], strlen(cell));
                }

        if (options->legend && n_rows > 0)
                line_print(titles, widths, columns, n);
        for (i = 0; i < n_rows; i++)
                line_print(cells + i * n, widths, columns, n);
        if (options->legend)
                printf("%s%zu %s%s listed.\n", n_rows > 0 ? "\n" : "", n_rows, noun,
                       n_rows == 1           ? ""
                       : endswith(noun, "s") ? "es"
                                             : "s");
        return 0;
}

int details_print(const CtlOptions *options, json_t *object, const Column *columns) {
        int width = 0;

        if (options->output != OUTPUT_TABLE) {
                _cleanup_json_ json_t *plain = NULL;
                int r;

                r = row_to_json(object, columns, &plain);
                return r < 0 ? log_error_errno(r, "Failed to print: %m") : json_print(options, plain);
        }

        for (const Column *c = columns; c->property; c++)
                width = MAX(width, (int) strlen(c->title));
        for (const Column *c = columns; c->property; c++) {
                _cleanup_free_ char *cell = table_cell(object, c);

                if (!cell)
                        return log_error_errno(ENOMEM, "Failed to print: %m");
                if (!streq(cell, "-"))
                        printf("%*s: %s\n", width, c->title, cell);
        }
        return 0;
}
