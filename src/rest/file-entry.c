/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/strings.h"
#include "rest/file-entry.h"

#define PERMISSIONS_LEN 10U
/* a byte that is no UTF-8 becomes three */
#define TEXT_MAX   (3 * FILE_PATH_LEN_MAX)
#define BASE64_MAX ((FILE_PATH_LEN_MAX + 2) / 3 * 4)
#define TEXT_BYTES (16 * KIB) /* allocated at once */

typedef struct EntryField {
        const char *name;
        bool optional;
        bool (*good)(json_t *value);
} EntryField;

static bool is_text(json_t *v) {
        return json_is_string(v) && json_string_length(v) <= TEXT_MAX &&
               strlen(json_string_value(v)) == json_string_length(v);
}

static bool is_file_name(json_t *v) {
        return is_text(v) && file_name_is_valid(json_string_value(v));
}

static bool is_name(json_t *v) {
        return is_text(v) && json_string_length(v) <= LABEL_LEN_MAX;
}

static bool is_type(json_t *v) {
        return json_is_string(v) &&
               (streq(json_string_value(v), "file") || streq(json_string_value(v), "directory") ||
                streq(json_string_value(v), "symlink"));
}

static bool is_size(json_t *v) {
        return json_is_integer(v) && json_integer_value(v) >= 0;
}

static bool is_mode(json_t *v) {
        return is_size(v) && json_integer_value(v) <= 07777;
}

static bool is_permissions(json_t *v) {
        return json_is_string(v) && json_string_length(v) == PERMISSIONS_LEN &&
               strspn(json_string_value(v), "-dLbcpS?rwx") == PERMISSIONS_LEN;
}

static bool is_integer(json_t *v) {
        return json_is_integer(v);
}

static bool is_base64(json_t *v) {
        _cleanup_free_ void *bytes = NULL;
        size_t n;

        return json_is_string(v) && json_string_length(v) <= BASE64_MAX &&
               base64_decode(json_string_value(v), json_string_length(v), &bytes, &n) >= 0;
}

static const EntryField fields[] = {
        { "name", false, is_file_name },      { "path", false, is_text },
        { "type", false, is_type },           { "size", false, is_size },
        { "mode", false, is_mode },           { "permissions", false, is_permissions },
        { "owner", false, is_name },          { "group", false, is_name },
        { "modified_at", false, is_integer }, { "symlink_target", true, is_text },
        { "path_base64", true, is_base64 },
};

int file_entry_parse(const char *text, size_t n, json_t **ret) {
        json_t *in, *out;
        int r = 0;

        in = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        if (!in)
                return -EBADMSG;
        out = json_object();
        if (!out)
                r = -ENOMEM;

        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(fields); i++) {
                json_t *value = json_object_get(in, fields[i].name);

                if (!value || json_is_null(value))
                        r = fields[i].optional ? 0 : -EBADMSG;
                else if (!fields[i].good(value))
                        r = -EBADMSG;
                else if (json_object_set(out, fields[i].name, value) < 0)
                        r = -ENOMEM;
        }

        json_decref(in);
        if (r < 0)
                json_decref(out);
        else
                *ret = out;
        return r;
}

void file_list_done(FileList *l) {
        free(l->line);
        free(l->text);
        *l = (FileList) {};
}

static int append(char **buffer, size_t *n, size_t *n_allocated, const void *data, size_t n_data) {
        if (*n + n_data > *n_allocated) {
                size_t twice = MAX(2 * *n_allocated, (size_t) TEXT_BYTES);
                size_t allocate = MAX(*n + n_data, twice);
                char *larger = realloc(*buffer, allocate);

                if (!larger)
                        return -ENOMEM;
                *buffer = larger;
                *n_allocated = allocate;
        }
        memcpy(*buffer + *n, data, n_data);
        *n += n_data;
        return 0;
}

static int add_text(FileList *l, const char *text, size_t n) {
        return append(&l->text, &l->n_text, &l->n_text_allocated, text, n);
}

static int on_dump(const char *text, size_t n, void *userdata) {
        return add_text(userdata, text, n);
}

/* {"error":…}: the agent's last line when there are too many entries. */
static bool is_too_large(const char *line, size_t n) {
        json_t *root = json_loadb(line, n, JSON_REJECT_DUPLICATES, NULL);
        const char *code = "";
        bool is;

        is = root && json_unpack(root, "{s:{s:s}}", "error", "code", &code) >= 0 &&
             fault_from_wire_name(code) == FAULT_TOO_LARGE;
        json_decref(root);
        return is;
}

static int add_line(FileList *l, const char *line, size_t n) {
        static const char begin[] = "{\"entries\":[";
        json_t *entry;
        int r;

        if (l->n_entries >= FILE_ENTRIES_MAX)
                return -E2BIG;
        r = file_entry_parse(line, n, &entry);
        if (r == -EBADMSG && is_too_large(line, n))
                return -E2BIG;
        if (r < 0)
                return r;

        r = l->n_entries++ == 0 ? add_text(l, begin, strlen(begin)) : add_text(l, ",", 1);
        if (r >= 0 && json_dump_callback(entry, on_dump, l, JSON_COMPACT) < 0)
                r = -ENOMEM;
        json_decref(entry);
        return r;
}

int file_list_feed(FileList *l, const char *data, size_t n) {
        while (n > 0) {
                const char *end = memchr(data, '\n', n);
                size_t k = end ? (size_t) (end - data) : n;
                int r;

                if (l->n_line + k > FILE_ENTRY_LEN_MAX)
                        return -EBADMSG;
                if (!end)
                        return append(&l->line, &l->n_line, &l->n_line_allocated, data, n);

                if (l->n_line == 0) {
                        r = add_line(l, data, k);
                } else {
                        r = append(&l->line, &l->n_line, &l->n_line_allocated, data, k);
                        if (r >= 0)
                                r = add_line(l, l->line, l->n_line);
                        l->n_line = 0;
                }
                if (r < 0)
                        return r;
                data += k + 1;
                n -= k + 1;
        }
        return 0;
}

int file_list_finish(FileList *l) {
        const char *text = l->n_entries == 0 ? "{\"entries\":[]}" : "]}";

        if (l->n_line > 0)
                return -EBADMSG;
        return add_text(l, text, strlen(text));
}

void file_list_clear_text(FileList *l) {
        l->n_text = 0;
}
