/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/bus/bus-server.h"
#include "daemon/core/journal.h"

#define POLKIT_PREFIX    "dev.wrenn.capsules1."
#define OPTION_BYTES_MAX (64 * KIB)
#define OPTION_LIST_MAX  4096U

int bus_error_from_fault(sd_bus_error *error, int r, const Fault *fault) {
        if (r >= 0)
                return r;

        if (fault && fault_is_set(fault))
                return sd_bus_error_set(error, fault_bus_name(fault->code), fault->message);
        if (r == -ENOMEM)
                return sd_bus_error_set(error, fault_bus_name(FAULT_NO_MEMORY), "Out of memory.");
        return sd_bus_error_setf(error, fault_bus_name(FAULT_INTERNAL), "Internal error: %s.", strerror(-r));
}

void bus_reply_fault(sd_bus_message *m, int r, const Fault *fault) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

        (void) bus_error_from_fault(&error, r, fault);
        r = sd_bus_reply_method_error(m, &error);
        if (r < 0)
                (void) log_debug_errno(r, "Failed to answer a D-Bus call, ignoring: %m");
}

void bus_caller_done(BusCaller *c) {
        free(c->team);
        free(c->key_id);
        *c = (BusCaller) {};
}

int bus_authorize(BusServer *s, sd_bus_message *m, const char *verb, const char *const *details,
                  BusCaller *caller, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *action = strjoin(POLKIT_PREFIX, verb);
        int r;

        if (!action)
                return -ENOMEM;

        r = polkit_sender_uid(s->polkit, m, &caller->uid, &fault);
        if (r > 0 && (caller->team || caller->key_id) && caller->uid != 0 &&
            (polkit_trusted_uid(s->polkit) == UID_UNKNOWN || caller->uid != polkit_trusted_uid(s->polkit)))
                r = fault_set(&fault, FAULT_ACCESS_DENIED,
                              "Only wrenn-restd and root may name a team or a key.");
        if (r > 0)
                r = polkit_authorize(s->polkit, m, action, details, &caller->uid, &fault);
        if (r < 0 && fault.code == FAULT_ACCESS_DENIED)
                journal_denied(caller->uid, verb, fault.message);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : r;
}

static int read_string(sd_bus_message *m, const char *name, char **field, Fault *reterr) {
        const char *value;
        int r;

        r = sd_bus_message_read(m, "s", &value);
        if (r < 0)
                return r;
        if (strlen(value) > OPTION_BYTES_MAX)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: too long.", name);
        return free_and_strdup(field, value);
}

static int read_bool(sd_bus_message *m, bool *field) {
        int value, r;

        r = sd_bus_message_read(m, "b", &value);
        if (r >= 0)
                *field = value;
        return r;
}

static int read_list(sd_bus_message *m, const char *name, char ***field, Fault *reterr) {
        _cleanup_strv_ char **list = NULL;
        const char *value;
        size_t n = 0;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "s");
        while (r >= 0 && (r = sd_bus_message_read(m, "s", &value)) > 0) {
                if (++n > OPTION_LIST_MAX)
                        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: too many entries.", name);
                r = strv_extend(&list, value);
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;

        strv_free(*field);
        *field = TAKE_PTR(list);
        return 0;
}

int bus_read_string_map(sd_bus_message *m, char ***ret, Fault *reterr) {
        _cleanup_strv_ char **map = NULL;
        const char *name, *value;
        size_t n = 0;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{ss}");
        while (r >= 0 && (r = sd_bus_message_read(m, "{ss}", &name, &value)) > 0) {
                if (++n > OPTION_LIST_MAX)
                        return fault_set(reterr, FAULT_INVALID_ARGS, "Expected at most %u entries.",
                                         OPTION_LIST_MAX);
                if (!env_name_is_valid(name))
                        return fault_set(reterr, FAULT_INVALID_ARGS,
                                         "A name must not be empty or contain '='.");
                r = strv_extendf(&map, "%s=%s", name, value);
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(map);
        return 0;
}

static int read_map(sd_bus_message *m, char ***field, Fault *reterr) {
        char **map = NULL;
        int r;

        r = bus_read_string_map(m, &map, reterr);
        if (r < 0)
                return r;

        strv_free(*field);
        *field = map;
        return 0;
}

int bus_append_string_map(sd_bus_message *m, char *const *map) {
        int r;

        r = sd_bus_message_open_container(m, 'a', "{ss}");
        STRV_FOREACH(i, map) {
                _cleanup_free_ char *name = NULL;
                const char *eq = strchr(*i, '=');

                if (r < 0 || !eq)
                        continue;
                name = strndup(*i, (size_t) (eq - *i));
                r = name ? sd_bus_message_append(m, "{ss}", name, eq + 1) : -ENOMEM;
        }
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static const char* option_signature(char type) {
        switch (type) {
        case 's':
                return "s";
        case 'b':
                return "b";
        case 'u':
                return "u";
        case 't':
                return "t";
        case 'S':
                return "as";
        case 'E':
                return "a{ss}";
        default:
                assert(!"type of an option");
                return "";
        }
}

/* The value in a variant of that type. */
static int read_option(sd_bus_message *m, const char *name, char type, void *field, Fault *reterr) {
        const char *expected = option_signature(type), *contents;
        int r;

        r = sd_bus_message_peek_type(m, NULL, &contents);
        if (r < 0)
                return r;
        if (!streq(contents, expected))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected a value of type '%s'.", name,
                                 expected);

        r = sd_bus_message_enter_container(m, 'v', expected);
        if (r < 0)
                return r;

        switch (type) {
        case 's':
                r = read_string(m, name, field, reterr);
                break;
        case 'b':
                r = read_bool(m, field);
                break;
        case 'u':
        case 't':
                r = sd_bus_message_read_basic(m, type, field);
                break;
        case 'S':
                r = read_list(m, name, field, reterr);
                break;
        case 'E':
                r = read_map(m, field, reterr);
                break;
        }
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* Where the member goes: an option of the table or one of the caller's. */
static int find_option(const BusOption *options, const char *name, void *target, BusCaller *caller,
                       char *ret_type, void **ret) {
        for (const BusOption *o = options; o && o->name; o++)
                if (streq(o->name, name)) {
                        *ret_type = o->type;
                        *ret = (char *) target + o->offset;
                        return (int) (o - options);
                }

        *ret_type = 's';
        if (caller && streq(name, "Team")) {
                *ret = &caller->team;
                return 62;
        }
        if (caller && streq(name, "KeyId")) {
                *ret = &caller->key_id;
                return 63;
        }
        return -ENOENT;
}

int bus_read_options(sd_bus_message *m, const BusOption *options, void *target, BusCaller *caller,
                     Fault *reterr) {
        const char *name;
        uint64_t seen = 0;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                void *field;
                char type;
                int index;

                r = sd_bus_message_read(m, "s", &name);
                if (r < 0)
                        break;
                index = find_option(options, name, target, caller, &type, &field);
                if (index < 0)
                        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: unknown option.", name);
                if (seen & (UINT64_C(1) << index))
                        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: given twice.", name);
                seen |= UINT64_C(1) << index;

                r = read_option(m, name, type, field, reterr);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        if (r >= 0 && caller && caller->team && !team_is_valid(caller->team))
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "Team: expected a name of 1 to %u characters a-z, 0-9 and '_'.",
                                 TEAM_MAX_LEN);
        return r < 0 ? r : 0;
}

int bus_object_path(const char *kind, const char *name, char **ret) {
        _cleanup_free_ char *prefix = strjoin(BUS_PATH "/", kind);

        return prefix ? sd_bus_path_encode(prefix, name, ret) : -ENOMEM;
}

int bus_object_name(const char *path, const char *kind, char **ret) {
        _cleanup_free_ char *prefix = strjoin(BUS_PATH "/", kind);

        return prefix ? sd_bus_path_decode(path, prefix, ret) : -ENOMEM;
}
