/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ps, signal. */

#include <signal.h>

#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"
#include "shared/json-field.h"

/* The answer's tuples as rows. */
static int process_rows(json_t *processes, json_t **ret) {
        static const char *const names[] = { "Pid", "Tag", "Command", "Arguments" };
        _cleanup_json_ json_t *rows = json_array();
        json_t *process;
        size_t i;

        json_array_foreach(processes, i, process) {
                json_t *row = json_object();

                for (size_t k = 0; k < ELEMENTSOF(names); k++)
                        if (json_object_set(row, names[k], json_array_get(process, k)) < 0) {
                                json_decref(row);
                                return -ENOMEM;
                        }
                if (json_array_append_new(rows, row) < 0)
                        return -ENOMEM;
        }
        *ret = TAKE_PTR(rows);
        return 0;
}

int verb_ps(Ctl *ctl, char **arguments) {
        static const Column columns[] = {
                { "PID", "Pid", COLUMN_NUMBER },
                { "TAG", "Tag", COLUMN_TEXT },
                { "COMMAND", "Command", COLUMN_TEXT },
                { "ARGUMENTS", "Arguments", COLUMN_TEXT },
                {},
        };
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        _cleanup_json_ json_t *processes = NULL, *rows = NULL;
        int r;

        r = ctl_capsule_method(ctl, arguments[0], "ListProcesses", &m);
        if (r == 0)
                r = ctl_send(ctl, m, "list processes", &reply);
        if (r != 0)
                return r;
        r = bus_value_to_json(reply, &processes);
        if (r >= 0)
                r = process_rows(processes, &rows);
        if (r < 0)
                return log_error_errno(r, "Failed to read the answer: %m");
        return table_print(&ctl->options, rows, columns, "process");
}

int verb_signal(Ctl *ctl, char **arguments) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r, sig = SIGTERM;

        if (arguments[2])
                sig = parse_signal(arguments[2]);
        if (sig < 0)
                return usage("'%s' is no signal: expected a name or number of kill -l.", arguments[2]);
        r = ctl_capsule_method(ctl, arguments[0], "SignalProcess", &m);
        if (r != 0)
                return r;
        r = sd_bus_message_append(m, "si", arguments[1], (int32_t) sig);
        if (r < 0)
                return log_error_errno(r, "'%s' is neither a tag nor a pid: %m", arguments[1]);
        return ctl_send(ctl, m, "signal the process", NULL);
}
