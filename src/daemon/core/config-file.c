/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/ini.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/core/config-file.h"

#define CONFIG_FILE_MAX    (256 * KIB)
#define CONFIG_DROP_IN_MAX 256U

static const char *const backend_names[_BACKEND_MAX] = {
        [BACKEND_AUTO] = "auto",
        [BACKEND_QEMU] = "qemu",
        [BACKEND_FIRECRACKER] = "firecracker",
};

static const char *const accelerator_names[_ACCELERATOR_MAX] = {
        [ACCELERATOR_AUTO] = "auto",
        [ACCELERATOR_KVM] = "kvm",
        [ACCELERATOR_TCG] = "tcg",
};

static const char *const pty_framing_names[_PTY_FRAMING_MAX] = {
        [PTY_FRAMING_BINARY] = "binary",
        [PTY_FRAMING_JSON] = "json",
};

static int name_index(const char *const *names, size_t n, const char *s) {
        for (size_t i = 0; i < n; i++)
                if (streq(names[i], s))
                        return (int) i;
        return -EINVAL;
}

const char* backend_to_string(Backend b) {
        assert(b >= 0 && b < _BACKEND_MAX);
        return backend_names[b];
}

Backend backend_from_string(const char *s) {
        return name_index(backend_names, _BACKEND_MAX, s);
}

const char* accelerator_to_string(Accelerator a) {
        assert(a >= 0 && a < _ACCELERATOR_MAX);
        return accelerator_names[a];
}

Accelerator accelerator_from_string(const char *s) {
        return name_index(accelerator_names, _ACCELERATOR_MAX, s);
}

const char* pty_framing_to_string(PtyFraming f) {
        assert(f == _PTY_FRAMING_INVALID || (f >= 0 && f < _PTY_FRAMING_MAX));
        return f < 0 ? "" : pty_framing_names[f];
}

PtyFraming pty_framing_from_string(const char *s) {
        return name_index(pty_framing_names, _PTY_FRAMING_MAX, s);
}

static int parse_backend(const IniKey *k, const char *value, void *field) {
        Backend b = backend_from_string(value);

        if (b < 0)
                return -EINVAL;
        *(Backend *) field = b;
        return 0;
}

static int parse_accelerator(const IniKey *k, const char *value, void *field) {
        Accelerator a = accelerator_from_string(value);

        if (a < 0)
                return -EINVAL;
        *(Accelerator *) field = a;
        return 0;
}

static int parse_pty_framing(const IniKey *k, const char *value, void *field) {
        PtyFraming f = pty_framing_from_string(value);

        if (f < 0)
                return -EINVAL;
        *(PtyFraming *) field = f;
        return 0;
}

static int parse_bool(const IniKey *k, const char *value, void *field) {
        int r = parse_boolean(value);

        if (r < 0)
                return r;
        *(bool *) field = r;
        return 0;
}

static uint64_t memory_share(unsigned percent) {
        long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

        if (pages <= 0 || size <= 0)
                return UINT64_MAX;
        return (uint64_t) pages / 100 * percent * (uint64_t) size;
}

/* "80%" of the machine's memory, or a size. */
static int parse_budget(const IniKey *k, const char *value, void *field) {
        unsigned percent;

        if (!endswith(value, "%"))
                return ini_parse_size(k, value, field);
        if (parse_percent(value, &percent) < 0)
                return -EINVAL;
        *(uint64_t *) field = memory_share(percent);
        return 0;
}

static int parse_time(const IniKey *k, const char *value, void *field) {
        uint64_t v;
        int r;

        r = parse_usec(value, &v);
        if (r < 0)
                return r;
        if (v < k->min || v > k->max)
                return -ERANGE;
        *(uint64_t *) field = v;
        return 0;
}

static int parse_text(const IniKey *k, const char *value, void *field) {
        return free_and_strdup(field, value);
}

static int parse_name(const IniKey *k, const char *value, void *field) {
        return name_is_valid(value) ? free_and_strdup(field, value) : -EINVAL;
}

/* "FIRST-LAST"; the two ends are neighbours in the struct. */
static int parse_uid_range(const IniKey *k, const char *value, void *field) {
        _cleanup_free_ char *first = NULL;
        const char *dash = strchr(value, '-');
        uint32_t a, b;

        if (!dash)
                return -EINVAL;
        first = strndup(value, (size_t) (dash - value));
        if (!first)
                return -ENOMEM;
        if (parse_u32(first, &a) < 0 || parse_u32(dash + 1, &b) < 0)
                return -EINVAL;
        if (a < k->min || b > k->max || a > b)
                return -ERANGE;
        ((uint32_t *) field)[0] = a;
        ((uint32_t *) field)[1] = b;
        return 0;
}

#define FIELD(f) offsetof(Config, f)

static const IniKey config_keys[] = {
        { "Daemon", "Backend", parse_backend, FIELD(backend) },
        { "Daemon", "Accelerator", parse_accelerator, FIELD(accelerator) },
        { "Daemon", "AllowEmulation", parse_bool, FIELD(allow_emulation) },
        { "Daemon", "MaxCapsules", ini_parse_u32, FIELD(capsules_max), 0, 65536 },
        { "Daemon", "MemoryBudget", parse_budget, FIELD(memory_budget_bytes), MEMORY_BYTES_MIN, UINT64_MAX },
        { "Capsule", "DefaultTemplate", parse_name, FIELD(default_template) },
        { "Capsule", "DefaultVCPUs", ini_parse_u32, FIELD(default_vcpus), VCPUS_MIN, VCPUS_MAX },
        { "Capsule", "DefaultMemory", ini_parse_size, FIELD(default_memory_bytes), MEMORY_BYTES_MIN,
          MEMORY_BYTES_MAX },
        { "Capsule", "DefaultDisk", ini_parse_size, FIELD(default_disk_bytes), DISK_BYTES_MIN,
          DISK_BYTES_MAX },
        { "Capsule", "MemoryOverhead", ini_parse_size, FIELD(memory_overhead_bytes), 16 * MIB, 16 * GIB },
        { "Capsule", "TasksMax", ini_parse_u32, FIELD(tasks_max), 8, 65536 },
        { "Capsule", "CPUWeight", ini_parse_u32, FIELD(cpu_weight), 1, 10000 },
        { "Capsule", "StopTimeoutSec", parse_time, FIELD(stop_timeout_usec), USEC_PER_SEC,
          3600 * USEC_PER_SEC },
        { "Capsule", "MaxExecSec", parse_time, FIELD(exec_max_usec), USEC_PER_SEC, USEC_INFINITY },
        { "Capsule", "UIDRange", parse_uid_range, FIELD(uid_first), 1000, UINT32_MAX - 1 },
        { "Network", "AddressPool4", parse_text, FIELD(address_pool4) },
        { "Network", "DNS", parse_text, FIELD(dns) },
        { "API", "PtyFraming", parse_pty_framing, FIELD(pty_framing) },
};

int config_init(Config *c) {
        *c = (Config) {
                .capsules_max = CAPSULES_MAX,
                .memory_budget_bytes = memory_share(80),
                .default_template = strdup("minimal"),
                .default_vcpus = 1,
                .default_memory_bytes = 512 * MIB,
                .default_disk_bytes = 5 * GIB,
                /* measured with TCG: 66 MiB, 32 of them translated code */
                .memory_overhead_bytes = 96 * MIB,
                .tasks_max = 128,
                .stop_timeout_usec = 20 * USEC_PER_SEC,
                .exec_max_usec = 24 * 3600 * USEC_PER_SEC,
                .uid_first = 1900000000,
                .uid_last = 1900065535,
                .address_pool4 = strdup("10.11.0.0/16"),
                .dns = strdup("host"),
        };

        if (!c->default_template || !c->address_pool4 || !c->dns) {
                config_done(c);
                return -ENOMEM;
        }
        return 0;
}

void config_done(Config *c) {
        free(c->default_template);
        free(c->address_pool4);
        free(c->dns);
        *c = (Config) {};
}

/* 0 or 1: the line was ignored. */
static int assign(Config *c, const char *name, const IniLine *line) {
        const IniKey *k = ini_find(config_keys, ELEMENTSOF(config_keys), line, NULL);
        int r;

        if (!k) {
                log_warning("%s:%u: Unknown key '%s' in section [%s], ignoring.", name, line->number,
                            line->name, line->section);
                return 1;
        }

        r = *line->value ? k->parse(k, line->value, (char *) c + k->offset) : 0;
        if (r < 0)
                log_warning("%s:%u: Cannot use value '%s' of %s=, ignoring: %s", name, line->number,
                            line->value, line->name, r == -ERANGE ? "out of range" : "not understood");
        return r < 0;
}

int config_parse(Config *c, const char *name, char *text) {
        IniLine line = {};
        int r, ignored = 0;

        while ((r = ini_next(&text, &line)) != 0)
                if (r < 0) {
                        log_warning("%s:%u: Missing '=', ignoring line.", name, line.number);
                        ignored++;
                } else
                        ignored += assign(c, name, &line);
        return ignored;
}

/* -ENOENT when it is not there. */
static int load_file(Config *c, const char *path, Fault *reterr) {
        _cleanup_close_ int fd = -EBADF;
        _cleanup_free_ char *text = NULL;
        struct stat st;
        int r;

        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) < 0)
                return errno == ENOENT ? -ENOENT
                                       : fault_set_errno(reterr, errno,
                                                         "Cannot read configuration file '%s'", path);
        if (!S_ISREG(st.st_mode))
                return 0; /* a link to /dev/null masks the file */
        if (st.st_mode & S_IWOTH)
                return fault_set(reterr, FAULT_ACCESS_DENIED,
                                 "Configuration file '%s' may be written by everybody; run: chmod o-w %s",
                                 path, path);

        r = read_fd(fd, CONFIG_FILE_MAX, &text, NULL);
        if (r < 0)
                return fault_set_errno(reterr, r, "Cannot read configuration file '%s'", path);

        (void) config_parse(c, path, text);
        return 0;
}

typedef struct DropIns {
        char *names[CONFIG_DROP_IN_MAX];
        char *paths[CONFIG_DROP_IN_MAX];
        size_t n;
} DropIns;

static void drop_ins_done(DropIns *d) {
        for (size_t i = 0; i < d->n; i++) {
                free(d->names[i]);
                free(d->paths[i]);
        }
        d->n = 0;
}

/* Sorted by name; a later directory replaces the same name of an earlier one. */
static int drop_ins_add(DropIns *d, const char *dir, const char *name) {
        _cleanup_free_ char *path = strjoin(dir, "/", name), *copy = NULL;
        size_t i;

        if (!path)
                return -ENOMEM;
        for (i = 0; i < d->n && strcmp(d->names[i], name) < 0; i++)
                ;
        if (i < d->n && streq(d->names[i], name)) {
                free(d->paths[i]);
                d->paths[i] = TAKE_PTR(path);
                return 0;
        }
        if (d->n >= CONFIG_DROP_IN_MAX)
                return -ENOBUFS;
        copy = strdup(name);
        if (!copy)
                return -ENOMEM;
        memmove(d->names + i + 1, d->names + i, (d->n - i) * sizeof(char *));
        memmove(d->paths + i + 1, d->paths + i, (d->n - i) * sizeof(char *));
        d->names[i] = TAKE_PTR(copy);
        d->paths[i] = TAKE_PTR(path);
        d->n++;
        return 0;
}

static int drop_ins_scan(DropIns *d, const char *dir) {
        _cleanup_free_ char *path = strjoin(dir, "/wrennd.conf.d");
        struct dirent *de;
        DIR *handle;
        int r = 0;

        if (!path)
                return -ENOMEM;
        handle = opendir(path);
        if (!handle)
                return errno == ENOENT ? 0 : -errno;
        while (r >= 0 && (de = readdir(handle)))
                if (de->d_name[0] != '.' && endswith(de->d_name, ".conf"))
                        r = drop_ins_add(d, path, de->d_name);
        closedir(handle);
        return r;
}

static int load_all(Config *c, const char *const *dirs, DropIns *d, Fault *reterr) {
        size_t n = 0;
        int r = -ENOENT;

        while (dirs[n])
                n++;

        /* the main file: the one of the highest directory only */
        for (size_t i = n; i > 0 && r == -ENOENT; i--) {
                _cleanup_free_ char *path = strjoin(dirs[i - 1], "/wrennd.conf");

                if (!path)
                        return -ENOMEM;
                r = load_file(c, path, reterr);
        }
        if (r < 0 && r != -ENOENT)
                return r;

        for (size_t i = 0; i < n; i++) {
                r = drop_ins_scan(d, dirs[i]);
                if (r < 0)
                        return fault_set_errno(reterr, r, "Cannot list the drop-ins of '%s'", dirs[i]);
        }

        for (size_t i = 0; i < d->n; i++) {
                r = load_file(c, d->paths[i], reterr);
                if (r < 0 && r != -ENOENT)
                        return r;
        }
        return 0;
}

int config_load(const char *const *dirs, Config *ret, Fault *reterr) {
        static const char *const default_dirs[] = { PKGLIBDIR, RUNDIR, CONFDIR, NULL };
        _cleanup_(config_done) Config c = {};
        _cleanup_(drop_ins_done) DropIns d = {};
        int r;

        r = config_init(&c);
        if (r < 0)
                return r;

        r = load_all(&c, dirs ?: default_dirs, &d, reterr);
        if (r < 0)
                return r;

        *ret = c;
        c = (Config) {};
        return 0;
}
