/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The connection, calls with their errors as exit statuses, and values as JSON. */

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"
#include "shared/json-field.h"

extern char **environ;

/* polkit asks on the terminal of a caller who is not root; without a terminal or agent the call is refused
 * as it should be. */
static void start_polkit_agent(Ctl *ctl) {
        char *argv[] = { (char *) "pkttyagent",
                         (char *) "--notify-fd=3",
                         (char *) "--fallback",
                         (char *) "--process",
                         NULL,
                         NULL };
        _cleanup_free_ char *process = NULL;
        _cleanup_close_ int reader = -EBADF, writer = -EBADF;
        posix_spawn_file_actions_t actions;
        int fds[2];
        pid_t pid;
        char c;

        if (geteuid() == 0 || !ctl->options.ask_password || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
                return;
        process = asprintf_null("%d", getpid());
        if (!process || pipe2(fds, O_CLOEXEC) < 0)
                return;
        reader = fds[0];
        writer = fds[1];
        argv[4] = process;

        if (posix_spawn_file_actions_init(&actions) != 0)
                return;
        if (posix_spawn_file_actions_adddup2(&actions, writer, 3) == 0 &&
            posix_spawnp(&pid, "pkttyagent", &actions, NULL, argv, environ) == 0)
                ctl->agent_pid = pid;
        (void) posix_spawn_file_actions_destroy(&actions);
        writer = close_fd(writer);

        /* EOF: registered, or there is no agent */
        (void) !read(reader, &c, 1);
}

int ctl_bus(Ctl *ctl) {
        int r;

        if (ctl->bus)
                return 0;

        r = sd_bus_open_system(&ctl->bus);
        if (r < 0)
                return log_error_errno(r, "Failed to connect to the system bus: %m (is dbus running?)");
        start_polkit_agent(ctl);
        return 0;
}

void ctl_done(Ctl *ctl) {
        ctl->bus = sd_bus_flush_close_unref(ctl->bus);
        if (ctl->agent_pid > 0) {
                (void) kill(ctl->agent_pid, SIGTERM);
                (void) waitpid(ctl->agent_pid, NULL, 0);
                ctl->agent_pid = 0;
        }
        options_done(&ctl->options);
}

int ctl_method(Ctl *ctl, const char *path, const char *interface, const char *member, sd_bus_message **ret) {
        int r;

        r = ctl_bus(ctl);
        if (r < 0)
                return r;
        r = sd_bus_message_new_method_call(ctl->bus, ret, BUS_NAME, path ?: BUS_PATH, interface, member);
        if (r < 0)
                return log_error_errno(r, "Failed to make a message: %m");
        (void) sd_bus_message_set_allow_interactive_authorization(*ret, ctl->options.ask_password);
        return 0;
}

int ctl_failed(const sd_bus_error *error, int r, const char *what) {
        FaultCode code = error && error->name ? fault_from_bus_name(error->name) : FAULT_INTERNAL;

        if (error &&
            sd_bus_error_has_names(error, SD_BUS_ERROR_SERVICE_UNKNOWN, SD_BUS_ERROR_NAME_HAS_NO_OWNER))
                log_error("Failed to %s: wrennd is not running and could not be started: %s "
                          "(systemctl status wrennd; journalctl -u wrennd)",
                          what, strempty(error->message));
        else if (error && !isempty(error->message))
                log_error("Failed to %s: %s", what, error->message);
        else
                (void) log_error_errno(r, "Failed to %s: %m", what);
        return fault_exit_status(code);
}

int ctl_send(Ctl *ctl, sd_bus_message *m, const char *what, sd_bus_message **ret) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_call(ctl->bus, m, CTL_CALL_TIMEOUT_USEC, &error, &reply);
        if (r < 0)
                return ctl_failed(&error, r, what);
        if (ret)
                *ret = TAKE_PTR(reply);
        return 0;
}

int bus_append_map(sd_bus_message *m, char *const *assignments) {
        int r;

        r = sd_bus_message_open_container(m, 'a', "{ss}");
        STRV_FOREACH(a, assignments) {
                const char *equals = strchr(*a, '=');
                _cleanup_free_ char *key = strndup(*a, (size_t) (equals - *a));

                if (r < 0)
                        return r;
                r = key ? sd_bus_message_append(m, "{ss}", key, equals + 1) : -ENOMEM;
        }
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int basic_to_json(sd_bus_message *m, char type, json_t **ret) {
        union {
                uint8_t u8;
                int16_t i16;
                uint16_t u16;
                int32_t i32;
                uint32_t u32;
                int64_t i64;
                uint64_t u64;
                double d;
                int b;
                const char *s;
        } v;
        int r;

        r = sd_bus_message_read_basic(m, type, &v);
        if (r < 0)
                return r;
        switch (type) {
        case SD_BUS_TYPE_BYTE:
                *ret = json_integer(v.u8);
                break;
        case SD_BUS_TYPE_BOOLEAN:
                *ret = json_boolean(v.b);
                break;
        case SD_BUS_TYPE_INT16:
                *ret = json_integer(v.i16);
                break;
        case SD_BUS_TYPE_UINT16:
                *ret = json_integer(v.u16);
                break;
        case SD_BUS_TYPE_INT32:
                *ret = json_integer(v.i32);
                break;
        case SD_BUS_TYPE_UINT32:
                *ret = json_integer(v.u32);
                break;
        case SD_BUS_TYPE_INT64:
                *ret = json_integer(v.i64);
                break;
        case SD_BUS_TYPE_UINT64: /* JSON's integers are signed: infinity reads as the largest */
                *ret = json_integer((json_int_t) MIN(v.u64, (uint64_t) INT64_MAX));
                break;
        case SD_BUS_TYPE_DOUBLE:
                *ret = json_real(v.d);
                break;
        case SD_BUS_TYPE_STRING:
        case SD_BUS_TYPE_OBJECT_PATH:
        case SD_BUS_TYPE_SIGNATURE:
                *ret = json_string(v.s);
                break;
        default:
                return -EBADMSG;
        }
        return *ret ? 0 : -ENOMEM;
}

static int dictionary_to_json(sd_bus_message *m, const char *contents, json_t **ret) {
        _cleanup_json_ json_t *object = json_object();
        int r;

        if (!object)
                return -ENOMEM;
        while ((r = sd_bus_message_enter_container(m, SD_BUS_TYPE_DICT_ENTRY, contents)) > 0) {
                json_t *value = NULL;
                const char *key;

                r = sd_bus_message_read_basic(m, contents[0], &key);
                if (r < 0)
                        return r;
                r = bus_value_to_json(m, &value);
                if (r < 0)
                        return r;
                if (json_object_set_new(object, key, value) < 0)
                        return -ENOMEM;
                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;
        *ret = TAKE_PTR(object);
        return 0;
}

static int sequence_to_json(sd_bus_message *m, json_t **ret) {
        _cleanup_json_ json_t *array = json_array();
        int r;

        if (!array)
                return -ENOMEM;
        while ((r = sd_bus_message_at_end(m, /* complete= */ false)) == 0) {
                json_t *value = NULL;

                r = bus_value_to_json(m, &value);
                if (r < 0)
                        return r;
                if (json_array_append_new(array, value) < 0)
                        return -ENOMEM;
        }
        if (r < 0)
                return r;
        *ret = TAKE_PTR(array);
        return 0;
}

int bus_value_to_json(sd_bus_message *m, json_t **ret) {
        _cleanup_free_ char *inner = NULL;
        _cleanup_json_ json_t *value = NULL;
        const char *contents;
        char type;
        int r;

        r = sd_bus_message_peek_type(m, &type, &contents);
        if (r <= 0)
                return r < 0 ? r : -EBADMSG;
        if (!strchr("av(r", type))
                return basic_to_json(m, type, ret);

        r = sd_bus_message_enter_container(m, type, contents);
        if (r < 0)
                return r;
        if (type == SD_BUS_TYPE_VARIANT)
                r = bus_value_to_json(m, &value);
        else if (type == SD_BUS_TYPE_ARRAY && contents[0] == SD_BUS_TYPE_DICT_ENTRY_BEGIN) {
                inner = strndup(contents + 1, strlen(contents) - 2);
                r = inner ? dictionary_to_json(m, inner, &value) : -ENOMEM;
        } else
                r = sequence_to_json(m, &value);
        if (r < 0)
                return r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(value);
        return 0;
}

int ctl_properties(Ctl *ctl, const char *path, const char *interface, json_t **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        int r;

        r = ctl_method(ctl, path, "org.freedesktop.DBus.Properties", "GetAll", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "s", interface);
        if (r < 0)
                return r;
        r = ctl_send(ctl, m, "read properties", &reply);
        if (r != 0)
                return r;
        r = bus_value_to_json(reply, ret);
        return r < 0 ? log_error_errno(r, "Failed to read properties: %m") : 0;
}

int ctl_objects(Ctl *ctl, const char *interface, json_t **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        _cleanup_json_ json_t *objects = NULL, *rows = json_array();
        const char *path;
        json_t *interfaces;
        int r;

        r = ctl_method(ctl, NULL, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &m);
        if (r < 0)
                return r;
        r = ctl_send(ctl, m, "list objects", &reply);
        if (r != 0)
                return r;
        r = bus_value_to_json(reply, &objects);
        if (r < 0)
                return log_error_errno(r, "Failed to read the list of objects: %m");

        json_object_foreach(objects, path, interfaces) {
                json_t *row = json_object_get(interfaces, interface);

                if (row && (json_object_set_new(row, "Path", json_string(path)) < 0 ||
                            json_array_append(rows, row) < 0))
                        return log_error_errno(ENOMEM, "Failed to list objects: %m");
        }
        *ret = TAKE_PTR(rows);
        return 0;
}

int ctl_capsule_path(Ctl *ctl, const char *id, char **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        const char *path;
        int r;

        r = ctl_method(ctl, NULL, MANAGER_INTERFACE, "GetCapsule", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "s", id);
        if (r < 0)
                return log_error_errno(r, "'%s' is not a capsule's id: %m", id);
        r = ctl_send(ctl, m, "find the capsule", &reply);
        if (r != 0)
                return r;
        r = sd_bus_message_read(reply, "o", &path);
        if (r < 0)
                return log_error_errno(r, "Failed to read the answer: %m");
        r = free_and_strdup(ret, path);
        return r < 0 ? log_error_errno(r, "Failed to find the capsule: %m") : 0;
}

int ctl_capsule_method(Ctl *ctl, const char *id, const char *member, sd_bus_message **ret) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = ctl_capsule_path(ctl, id, &path);
        return r != 0 ? r : ctl_method(ctl, path, CAPSULE_INTERFACE, member, ret);
}

const char* property_string(json_t *o, const char *name) {
        return strempty(json_string_value(json_object_get(o, name)));
}

uint64_t property_number(json_t *o, const char *name) {
        return (uint64_t) json_integer_value(json_object_get(o, name));
}
