/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "basic/files.h"
#include "basic/strings.h"
#include "daemon/host/cgroup.h"

#define CGROUP_ROOT     "/sys/fs/cgroup"
#define CGROUP_FILE_MAX (64 * KIB)

static bool is_unified(void) {
        return access(CGROUP_ROOT "/cgroup.controllers", F_OK) >= 0;
}

/* Appends the slices from the outside in: every '-' of the name opens one. */
static int add_slices(char *path, size_t size, const char *slice) {
        size_t n = strlen(path), length = strlen(slice) - strlen(".slice");

        for (size_t i = 0; i <= length; i++) {
                int k;

                if (i < length && slice[i] != '-')
                        continue;
                k = snprintf(path + n, size - n, "/%.*s.slice", (int) i, slice);
                if (k < 0 || (size_t) k >= size - n)
                        return -ENAMETOOLONG;
                n += (size_t) k;
        }
        return 0;
}

/* controller: of v1; "" is systemd's own hierarchy. file: "" is the group itself. */
static int make_path(char ret[static PATH_MAX], const char *controller, const char *slice, const char *unit,
                     const char *file) {
        size_t n;
        int k;

        if (!endswith(slice, ".slice"))
                return -EINVAL;

        if (is_unified())
                (void) snprintf(ret, PATH_MAX, "%s", CGROUP_ROOT);
        else
                (void) snprintf(ret, PATH_MAX, "%s/%s", CGROUP_ROOT, *controller ? controller : "systemd");
        if (add_slices(ret, PATH_MAX, slice) < 0)
                return -ENAMETOOLONG;

        n = strlen(ret);
        k = snprintf(ret + n, PATH_MAX - n, "/%s%s%s", unit, *file ? "/" : "", file);
        return k < 0 || (size_t) k >= PATH_MAX - n ? -ENAMETOOLONG : 0;
}

static char* read_attribute(const char *controller, const char *slice, const char *unit, const char *file) {
        char path[PATH_MAX];
        char *text;

        if (make_path(path, controller, slice, unit, file) < 0 ||
            read_file_at(AT_FDCWD, path, CGROUP_FILE_MAX, &text, NULL) < 0)
                return NULL;
        return text;
}

bool cgroup_exists(const char *slice, const char *unit) {
        char path[PATH_MAX];

        return make_path(path, "", slice, unit, "") >= 0 && access(path, F_OK) >= 0;
}

size_t cgroup_processes(const char *slice, const char *unit, pid_t *ret, size_t n) {
        _cleanup_free_ char *text = read_attribute("", slice, unit, "cgroup.procs");
        size_t found = 0;

        for (char *line = text; line && *line && found < n;) {
                char *end;
                long pid = strtol(line, &end, 10);

                if (end == line)
                        break;
                if (pid > 0)
                        ret[found++] = (pid_t) pid;
                line = end + strspn(end, "\n");
        }
        return found;
}

uint64_t cgroup_memory_current(const char *slice, const char *unit) {
        _cleanup_free_ char *text = read_attribute("memory", slice, unit,
                                                   is_unified() ? "memory.current"
                                                                : "memory.usage_in_bytes");

        return text ? strtoull(text, NULL, 10) : 0;
}

uint64_t cgroup_oom_kills(const char *slice, const char *unit) {
        _cleanup_free_ char *text = read_attribute("memory", slice, unit,
                                                   is_unified() ? "memory.events" : "memory.oom_control");
        const char *p;

        for (p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : "") {
                const char *value = startswith(p, "oom_kill ");

                if (value)
                        return strtoull(value, NULL, 10);
        }
        return 0;
}
