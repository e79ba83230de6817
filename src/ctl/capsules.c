/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* list, status, create, destroy, ping. */

#include <stdio.h>

#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"
#include "shared/json-field.h"

static const Column list_columns[] = {
        { "ID", "Id", COLUMN_TEXT },
        { "STATE", "State", COLUMN_TEXT },
        { "TEMPLATE", "Template", COLUMN_TEXT },
        { "TEAM", "Team", COLUMN_TEXT },
        { "VCPUS", "VCPUs", COLUMN_NUMBER },
        { "MEMORY", "MemoryBytes", COLUMN_SIZE },
        { "ADDRESS", "HostAddress", COLUMN_TEXT },
        { "CREATED", "CreatedTimestamp", COLUMN_TIME },
        {},
};

static const Column capsule_columns[] = {
        { "Id", "Id", COLUMN_TEXT },
        { "State", "State", COLUMN_TEXT },
        { "Message", "StatusMessage", COLUMN_TEXT },
        { "Ended because", "TerminationReason", COLUMN_TEXT },
        { "Template", "Template", COLUMN_TEXT },
        { "Team", "Team", COLUMN_TEXT },
        { "Owner UID", "OwnerUID", COLUMN_NUMBER },
        { "Labels", "Labels", COLUMN_TEXT },
        { "Unit", "Unit", COLUMN_TEXT },
        { "Monitor", "Leader", COLUMN_NUMBER },
        { "VMM", "VMMPID", COLUMN_NUMBER },
        { "Backend", "Backend", COLUMN_TEXT },
        { "Isolation", "Isolation", COLUMN_TEXT },
        { "vCPUs", "VCPUs", COLUMN_NUMBER },
        { "Memory", "MemoryBytes", COLUMN_SIZE },
        { "Memory used", "MemoryCurrent", COLUMN_SIZE },
        { "Disk", "DiskBytes", COLUMN_SIZE },
        { "Disk used", "DiskUsage", COLUMN_SIZE },
        {},
};

static const Column capsule_time_columns[] = {
        { "Host address", "HostAddress", COLUMN_TEXT },
        { "Agent", "AgentVersion", COLUMN_TEXT },
        { "Boot mode", "BootMode", COLUMN_TEXT },
        { "Timeout", "TimeoutUSec", COLUMN_NUMBER },
        { "Created", "CreatedTimestamp", COLUMN_TIME },
        { "Started", "StartedTimestamp", COLUMN_TIME },
        { "Last active", "LastActiveTimestamp", COLUMN_TIME },
        {},
};

static const Column manager_columns[] = {
        { "Version", "Version", COLUMN_TEXT },
        { "Isolation", "Isolation", COLUMN_TEXT },
        { "Capsules", "NCapsules", COLUMN_NUMBER },
        { "Running", "NRunning", COLUMN_NUMBER },
        { "vCPUs reserved", "VCPUsReserved", COLUMN_NUMBER },
        { "Memory reserved", "MemoryReserved", COLUMN_SIZE },
        { "Memory budget", "MemoryBudget", COLUMN_SIZE },
        { "Default template", "DefaultTemplate", COLUMN_TEXT },
        {},
};

static bool state_has_ended(const char *state) {
        return streq(state, "stopped") || streq(state, "error");
}

static bool labels_match(json_t *row, char *const *wanted) {
        json_t *labels = json_object_get(row, "Labels");

        STRV_FOREACH(w, wanted) {
                const char *equals = strchr(*w, '=');
                _cleanup_free_ char *name = strndup(*w, equals ? (size_t) (equals - *w) : strlen(*w));
                const char *value = name ? json_string_value(json_object_get(labels, name)) : NULL;

                if (!value || (equals && !streq(value, equals + 1)))
                        return false;
        }
        return true;
}

static int newest_first(const void *a, const void *b) {
        uint64_t x = property_number(*(json_t *const *) a, "CreatedTimestamp");
        uint64_t y = property_number(*(json_t *const *) b, "CreatedTimestamp");

        return x < y ? 1 : x > y ? -1 : 0;
}

int verb_list(Ctl *ctl, char **arguments) {
        _cleanup_json_ json_t *objects = NULL, *rows = json_array();
        _cleanup_free_ json_t **sorted = NULL;
        size_t i, n = 0;
        json_t *row;
        int r;

        r = ctl_objects(ctl, CAPSULE_INTERFACE, &objects);
        if (r != 0)
                return r;
        sorted = calloc(json_array_size(objects) + 1, sizeof(json_t *));
        if (!sorted || !rows)
                return log_error_errno(ENOMEM, "Failed to list capsules: %m");

        json_array_foreach(objects, i, row)
                if ((ctl->options.all || !state_has_ended(property_string(row, "State"))) &&
                    labels_match(row, ctl->options.labels) &&
                    (!ctl->options.team || streq(ctl->options.team, property_string(row, "Team"))))
                        sorted[n++] = row;
        qsort(sorted, n, sizeof(json_t *), newest_first);
        for (i = 0; i < n; i++)
                if (json_array_append(rows, sorted[i]) < 0)
                        return log_error_errno(ENOMEM, "Failed to list capsules: %m");
        return table_print(&ctl->options, rows, list_columns, "capsule");
}

static int status_of_manager(Ctl *ctl) {
        _cleanup_json_ json_t *properties = NULL;
        int r;

        r = ctl_properties(ctl, BUS_PATH, MANAGER_INTERFACE, &properties);
        return r != 0 ? r : details_print(&ctl->options, properties, manager_columns);
}

static int status_of_capsule(Ctl *ctl, const char *id) {
        _cleanup_json_ json_t *properties = NULL;
        _cleanup_free_ char *path = NULL;
        int r;

        r = ctl_capsule_path(ctl, id, &path);
        if (r != 0)
                return r;
        r = ctl_properties(ctl, path, CAPSULE_INTERFACE, &properties);
        if (r != 0)
                return r;

        if (ctl->options.output == OUTPUT_TABLE) {
                r = details_print(&ctl->options, properties, capsule_columns);
                if (r == 0)
                        r = details_print(&ctl->options, properties, capsule_time_columns);
        } else {
                Column all[ELEMENTSOF(capsule_columns) + ELEMENTSOF(capsule_time_columns) - 1];

                memcpy(all, capsule_columns, sizeof(capsule_columns));
                memcpy(all + ELEMENTSOF(capsule_columns) - 1, capsule_time_columns,
                       sizeof(capsule_time_columns));
                r = details_print(&ctl->options, properties, all);
        }
        if (r < 0)
                return r;
        return streq(property_string(properties, "State"), "running") ? 0 : EXIT_NOT_RUNNING;
}

int verb_status(Ctl *ctl, char **arguments) {
        int r, worst = 0;

        if (!*arguments)
                return status_of_manager(ctl);
        STRV_FOREACH(id, arguments) {
                if (id != arguments && ctl->options.output == OUTPUT_TABLE)
                        putchar('\n');
                r = status_of_capsule(ctl, *id);
                if (r != 0)
                        worst = r;
        }
        return worst;
}

/* An option that is a map; none when it is empty. */
static int append_map_option(sd_bus_message *m, const char *name, char *const *entries) {
        int r;

        if (!entries)
                return 0;
        r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", name);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', "a{ss}");
        if (r >= 0)
                r = bus_append_map(m, entries);
        for (unsigned i = 0; i < 2 && r >= 0; i++)
                r = sd_bus_message_close_container(m);
        return r;
}

static int append_create_options(sd_bus_message *m, const CtlOptions *o) {
        int r;

        r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0 && o->vcpus > 0)
                r = sd_bus_message_append(m, "{sv}", "VCPUs", "u", (uint32_t) o->vcpus);
        if (r >= 0 && o->memory_bytes > 0)
                r = sd_bus_message_append(m, "{sv}", "MemoryBytes", "t", o->memory_bytes);
        if (r >= 0 && o->disk_bytes > 0)
                r = sd_bus_message_append(m, "{sv}", "DiskBytes", "t", o->disk_bytes);
        if (r >= 0 && o->timeout_usec > 0)
                r = sd_bus_message_append(m, "{sv}", "TimeoutUSec", "t", o->timeout_usec);
        if (r >= 0 && o->team)
                r = sd_bus_message_append(m, "{sv}", "Team", "s", o->team);
        if (r >= 0 && o->no_wait)
                r = sd_bus_message_append(m, "{sv}", "NoWait", "b", true);
        if (r >= 0)
                r = append_map_option(m, "Labels", o->labels);
        if (r >= 0)
                r = append_map_option(m, "Env", o->env);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r;
}

int capsule_create(Ctl *ctl, const char *template, char **ret_id, char **ret_path) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        const char *id, *path;
        int r;

        r = ctl_method(ctl, NULL, MANAGER_INTERFACE, "CreateCapsule", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "s", strempty(template));
        if (r >= 0)
                r = append_create_options(m, &ctl->options);
        if (r < 0)
                return log_error_errno(r, "Failed to make the request: %m");
        r = ctl_send(ctl, m, "create a capsule", &reply);
        if (r != 0)
                return r;
        r = sd_bus_message_read(reply, "so", &id, &path);
        if (r >= 0)
                r = free_and_strdup(ret_id, id);
        if (r >= 0)
                r = free_and_strdup(ret_path, path);
        return r < 0 ? log_error_errno(r, "Failed to read the answer: %m") : 0;
}

int verb_create(Ctl *ctl, char **arguments) {
        _cleanup_free_ char *id = NULL, *path = NULL;
        int r;

        r = capsule_create(ctl, arguments[0], &id, &path);
        if (r == 0)
                puts(id);
        return r;
}

/* A method of the manager on one capsule, with no options of ours. */
static int call_on_capsule(Ctl *ctl, const char *member, const char *id, const char *what) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = ctl_method(ctl, NULL, MANAGER_INTERFACE, member, &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "sa{sv}", id, 0);
        if (r < 0)
                return log_error_errno(r, "'%s' is not a capsule's id: %m", id);
        return ctl_send(ctl, m, what, NULL);
}

int capsule_destroy(Ctl *ctl, const char *id) {
        return call_on_capsule(ctl, "DestroyCapsule", id, "destroy the capsule");
}

int verb_destroy(Ctl *ctl, char **arguments) {
        int r, worst = 0;

        STRV_FOREACH(id, arguments) {
                r = capsule_destroy(ctl, *id);
                if (r != 0)
                        worst = r;
        }
        return worst;
}

int verb_ping(Ctl *ctl, char **arguments) {
        return call_on_capsule(ctl, "PingCapsule", arguments[0], "ping the capsule");
}
