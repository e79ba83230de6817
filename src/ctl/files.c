/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ls, cat. */

#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"
#include "ctl/display.h"
#include "ctl/files.h"
#include "ctl/flow.h"
#include "shared/json-field.h"

/* A method of the capsule whose first argument is a path in it. 0 or -errno, logged. */
static int path_method(Ctl *ctl, const char *object, const char *member, const char *path,
                       sd_bus_message **ret) {
        int r;

        if (!utf8_is_valid(path, strlen(path)))
                return log_error_errno(
                                EINVAL,
                                "'%s' is not UTF-8, which D-Bus wants: take the directory it lies in.",
                                path);
        r = ctl_method(ctl, object, CAPSULE_INTERFACE, member, ret);
        if (r < 0)
                return r;
        r = sd_bus_message_append(*ret, "s", path);
        return r < 0 ? log_error_errno(r, "Failed to make the request: %m") : 0;
}

int capsule_stat(Ctl *ctl, const char *object, const char *path, bool may_lack, json_t **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r;

        r = path_method(ctl, object, "StatPath", path, &m);
        if (r < 0)
                return r;
        r = sd_bus_call(ctl->bus, m, CTL_CALL_TIMEOUT_USEC, &error, &reply);
        if (r < 0 && may_lack && sd_bus_error_has_name(&error, BUS_NAME ".Error.NotFound")) {
                *ret = NULL;
                return 0;
        }
        if (r < 0)
                return ctl_failed(&error, r, "look at the path");
        r = bus_value_to_json(reply, ret);
        return r < 0 ? log_error_errno(r, "Failed to read the answer: %m") : 0;
}

/* The last part of the path's real bytes, which need be no text, as base64: for programs. */
static int add_path_bytes(json_t *entry) {
        json_t *bytes = json_object_get(entry, "PathBytes"), *byte;
        _cleanup_free_ char *data = NULL, *text = NULL;
        size_t i, n = json_array_size(bytes);

        if (n == 0)
                return 0;
        data = malloc(n);
        if (!data)
                return -ENOMEM;
        json_array_foreach(bytes, i, byte)
                data[i] = (char) json_integer_value(byte);
        text = base64_encode(data, n);
        return !text || json_object_set_new(entry, "PathBase64", json_string(text)) < 0 ? -ENOMEM : 0;
}

/* As columns want it: times in microseconds, a link with what it points to. */
static int prepare_entry(json_t *entry, bool table) {
        const char *target = property_string(entry, "SymlinkTarget"), *name = property_string(entry, "Name");
        _cleanup_free_ char *shown = NULL;
        uint64_t modified_sec = property_number(entry, "ModifiedAt");
        int r;

        r = add_path_bytes(entry);
        if (r < 0)
                return r;
        shown = table && *target ? strjoin(name, " -> ", target) : strdup(name);
        if (!shown || json_object_set_new(entry, "Name", json_string(shown)) < 0 ||
            json_object_set_new(entry, "ModifiedAt",
                                json_integer((json_int_t) (modified_sec * USEC_PER_SEC))) < 0)
                return -ENOMEM;
        return 0;
}

static int by_name(const void *a, const void *b) {
        return strcmp(property_string(*(json_t *const *) a, "Name"),
                      property_string(*(json_t *const *) b, "Name"));
}

static int print_entries(Ctl *ctl, json_t *entries) {
        static const Column table_columns[] = {
                { "MODE", "Permissions", COLUMN_TEXT },
                { "OWNER", "Owner", COLUMN_TEXT },
                { "GROUP", "Group", COLUMN_TEXT },
                { "SIZE", "Size", COLUMN_SIZE },
                { "MODIFIED", "ModifiedAt", COLUMN_TIME },
                { "NAME", "Name", COLUMN_TEXT },
                {},
        };
        static const Column json_columns[] = {
                { .property = "Name" },       { .property = "Path" },          { .property = "PathBase64" },
                { .property = "Type" },       { .property = "Size" },          { .property = "Mode" },
                { .property = "Owner" },      { .property = "Permissions" },   { .property = "Group" },
                { .property = "ModifiedAt" }, { .property = "SymlinkTarget" }, {},
        };
        bool table = ctl->options.output == OUTPUT_TABLE;
        _cleanup_json_ json_t *sorted = json_array();
        _cleanup_free_ json_t **rows = NULL;
        size_t n = json_array_size(entries), i;
        json_t *entry;

        rows = calloc(n + 1, sizeof(json_t *));
        if (!rows || !sorted)
                return log_error_errno(ENOMEM, "Failed to list: %m");
        json_array_foreach(entries, i, entry) {
                if (prepare_entry(entry, table) < 0)
                        return log_error_errno(ENOMEM, "Failed to list: %m");
                rows[i] = entry;
        }
        qsort(rows, n, sizeof(json_t *), by_name);
        for (i = 0; i < n; i++)
                if (json_array_append(sorted, rows[i]) < 0)
                        return log_error_errno(ENOMEM, "Failed to list: %m");
        return table_print(&ctl->options, sorted, table ? table_columns : json_columns, "file");
}

static int list_directory(Ctl *ctl, const char *object, const char *path, json_t **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        int r;

        r = path_method(ctl, object, "ListDirectory", path, &m);
        if (r >= 0)
                r = sd_bus_message_append(m, "u", UINT32_C(1));
        if (r < 0)
                return r;
        r = ctl_send(ctl, m, "list the directory", &reply);
        if (r != 0)
                return r;
        r = bus_value_to_json(reply, ret);
        return r < 0 ? log_error_errno(r, "Failed to read the answer: %m") : 0;
}

int verb_ls(Ctl *ctl, char **arguments) {
        _cleanup_json_ json_t *entry = NULL, *entries = NULL;
        const char *path = arguments[1] ?: "~";
        _cleanup_free_ char *object = NULL;
        int r;

        r = ctl_capsule_path(ctl, arguments[0], &object);
        if (r == 0)
                r = capsule_stat(ctl, object, path, /* may_lack= */ false, &entry);
        if (r != 0)
                return r;
        if (streq(property_string(entry, "Type"), "directory"))
                r = list_directory(ctl, object, path, &entries);
        else
                entries = json_pack("[O]", entry);
        return r != 0 ? r : print_entries(ctl, entries);
}

/* A pipe has no other way to tell that it ended early than to hold less than there was. */
static int cat_stream(int fd, const char *path, json_t *entry) {
        FlowTransform transform = isatty(STDOUT_FILENO) ? display_transform : NULL;
        uint64_t n, size = property_number(entry, "Size");
        Display display = {};
        int r;

        r = flow_run(fd, STDOUT_FILENO, transform, &display, &n);
        if (r < 0)
                return log_error_errno(r, "Failed to print '%s': %m", path);
        if (!transform && streq(property_string(entry, "Type"), "file") && n < size)
                return log_error_errno(EIO,
                                       "Failed to print '%s': it ended after %" PRIu64 " of %" PRIu64
                                       " bytes.",
                                       path, n, size);
        return 0;
}

static int cat(Ctl *ctl, const char *object, const char *path) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        _cleanup_json_ json_t *entry = NULL;
        int fd, r;

        r = capsule_stat(ctl, object, path, /* may_lack= */ false, &entry);
        if (r != 0)
                return r;
        r = path_method(ctl, object, "OpenFile", path, &m);
        if (r >= 0)
                r = sd_bus_message_append(m, "sa{sv}", "r", 0);
        if (r < 0)
                return r;
        r = ctl_send(ctl, m, "read the file", &reply);
        if (r != 0)
                return r;
        r = sd_bus_message_read(reply, "h", &fd);
        return r < 0 ? log_error_errno(r, "Failed to read the answer: %m") : cat_stream(fd, path, entry);
}

int verb_cat(Ctl *ctl, char **arguments) {
        _cleanup_free_ char *object = NULL;
        int r, worst = 0;

        r = ctl_capsule_path(ctl, arguments[0], &object);
        if (r != 0)
                return r;
        STRV_FOREACH(path, arguments + 1) {
                r = cat(ctl, object, *path);
                if (r != 0)
                        worst = r;
        }
        return worst;
}
