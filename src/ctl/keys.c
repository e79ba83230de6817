/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* create-key, list-keys, revoke-key. */

#include <stdio.h>

#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"
#include "shared/json-field.h"

static int append_key_options(sd_bus_message *m, const CtlOptions *o) {
        int r;

        r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0 && o->team)
                r = sd_bus_message_append(m, "{sv}", "Team", "s", o->team);
        if (r >= 0 && o->default_template)
                r = sd_bus_message_append(m, "{sv}", "DefaultTemplate", "s", o->default_template);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

int verb_create_key(Ctl *ctl, char **arguments) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        const char *id, *secret;
        int r;

        r = ctl_method(ctl, NULL, MANAGER_INTERFACE, "CreateKey", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "s", arguments[0]);
        if (r >= 0)
                r = append_key_options(m, &ctl->options);
        if (r < 0)
                return log_error_errno(r, "Failed to make the request: %m");
        (void) sd_bus_message_sensitive(m);
        r = ctl_send(ctl, m, "create a key", &reply);
        if (r != 0)
                return r;
        r = sd_bus_message_read(reply, "ss", &id, &secret);
        if (r < 0)
                return log_error_errno(r, "Failed to read the answer: %m");

        if (ctl->options.output != OUTPUT_TABLE)
                printf("{\"id\":\"%s\",\"key\":\"%s\"}\n", id, secret);
        else if (ctl->options.quiet)
                printf("%s\n", secret);
        else
                printf(" Id: %s\nKey: %s\n\nThis is the only time the key is shown. Use it as:\n  export WRENN_API_KEY=%s\n",
                       id, secret, secret);
        return 0;
}

int verb_list_keys(Ctl *ctl, char **arguments) {
        static const Column columns[] = {
                { "ID", "Id", COLUMN_TEXT },
                { "NAME", "Name", COLUMN_TEXT },
                { "TEAM", "Team", COLUMN_TEXT },
                { "PREFIX", "Prefix", COLUMN_TEXT },
                { "DEFAULT TEMPLATE", "DefaultTemplate", COLUMN_TEXT },
                { "CREATED", "Created", COLUMN_TIME },
                { "LAST USED", "LastUsed", COLUMN_TIME },
                {},
        };
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        _cleanup_json_ json_t *rows = NULL;
        int r;

        r = ctl_method(ctl, NULL, MANAGER_INTERFACE, "ListKeys", &m);
        if (r < 0)
                return r;
        r = ctl_send(ctl, m, "list the keys", &reply);
        if (r != 0)
                return r;
        r = bus_value_to_json(reply, &rows);
        if (r < 0)
                return log_error_errno(r, "Failed to read the answer: %m");
        return table_print(&ctl->options, rows, columns, "key");
}

int verb_revoke_key(Ctl *ctl, char **arguments) {
        int r, worst = 0;

        STRV_FOREACH(id, arguments) {
                _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

                r = ctl_method(ctl, NULL, MANAGER_INTERFACE, "RevokeKey", &m);
                if (r < 0)
                        return r;
                r = sd_bus_message_append(m, "s", *id);
                if (r < 0)
                        return log_error_errno(r, "'%s' is not a key's id: %m", *id);
                r = ctl_send(ctl, m, "revoke the key", NULL);
                if (r != 0)
                        worst = r;
        }
        return worst;
}
