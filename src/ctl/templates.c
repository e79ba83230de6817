/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* build-template, import-template, list-templates, remove-template. */

#include <fcntl.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"
#include "shared/json-field.h"

enum {
        IMPORT_OVERWRITE = 1, /* flags of ImportTemplate */
};

int verb_build_template(Ctl *ctl, char **arguments) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = ctl_method(ctl, NULL, MANAGER_INTERFACE, "BuildTemplate", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "sa{sv}", arguments[0], 0);
        if (r < 0)
                return log_error_errno(r, "'%s' is not a template's name: %m", arguments[0]);
        return job_run(ctl, m, "build the template");
}

int verb_import_template(Ctl *ctl, char **arguments) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_close_ int fd = -EBADF;
        uint64_t flags = ctl->options.force ? IMPORT_OVERWRITE : 0;
        int r;

        if (streq(arguments[1], "-"))
                fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
        else
                fd = open(arguments[1], O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return log_error_errno(errno, "Failed to open '%s': %m", arguments[1]);

        r = ctl_method(ctl, NULL, MANAGER_INTERFACE, "ImportTemplate", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "hsst", fd, "tar", arguments[0], flags);
        if (r < 0)
                return log_error_errno(r, "Failed to make the request: %m");
        return job_run(ctl, m, "import the template");
}

int verb_list_templates(Ctl *ctl, char **arguments) {
        static const Column columns[] = {
                { "NAME", "Name", COLUMN_TEXT },
                { "ALIASES", "Aliases", COLUMN_TEXT },
                { "TYPE", "Type", COLUMN_TEXT },
                { "SIZE", "Size", COLUMN_SIZE },
                { "USER", "DefaultUser", COLUMN_TEXT },
                { "PLATFORM", "Platform", COLUMN_TEXT },
                { "CREATED", "Created", COLUMN_TIME },
                { "DIGEST", "Digest", COLUMN_TEXT },
                {},
        };
        _cleanup_json_ json_t *rows = NULL;
        int r;

        r = ctl_objects(ctl, TEMPLATE_INTERFACE, &rows);
        return r != 0 ? r : table_print(&ctl->options, rows, columns, "template");
}

int verb_remove_template(Ctl *ctl, char **arguments) {
        int r, worst = 0;

        STRV_FOREACH(name, arguments) {
                _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

                r = ctl_method(ctl, NULL, MANAGER_INTERFACE, "RemoveTemplate", &m);
                if (r < 0)
                        return r;
                r = sd_bus_message_append(m, "st", *name, UINT64_C(0));
                if (r < 0)
                        return log_error_errno(r, "'%s' is not a template's name: %m", *name);
                r = ctl_send(ctl, m, "remove the template", NULL);
                if (r != 0)
                        worst = r;
        }
        return worst;
}
