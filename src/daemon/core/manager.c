/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/file.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/core/adopt.h"
#include "daemon/core/capsule.h"
#include "daemon/core/job.h"
#include "daemon/core/key.h"
#include "daemon/core/layer.h"
#include "daemon/core/manager.h"
#include "daemon/core/template.h"
#include "daemon/core/trash.h"
#include "daemon/core/uid-pool.h"
#include "daemon/core/vmm.h"
#include "daemon/host/slot.h"
#include "shared/event.h"

#define BOOT_ID_FILE_MAX 64U

static int set_paths(Manager *m, const ManagerPaths *p) {
        m->state_dir = strdup(p && p->state_dir ? p->state_dir : STATEDIR);
        m->run_dir = strdup(p && p->run_dir ? p->run_dir : RUNDIR);
        m->cache_dir = strdup(p && p->cache_dir ? p->cache_dir : CACHEDIR);
        m->lib_dir = strdup(p && p->lib_dir ? p->lib_dir : PKGLIBDIR);
        return m->state_dir && m->run_dir && m->cache_dir && m->lib_dir ? 0 : -ENOMEM;
}

static int make_tables(Manager *m) {
        Hashmap **tables[] = { &m->capsules, &m->templates,    &m->templates_by_id,
                               &m->keys,     &m->keys_by_hash, &m->jobs };

        for (size_t i = 0; i < ELEMENTSOF(tables); i++) {
                *tables[i] = hashmap_new();
                if (!*tables[i])
                        return -ENOMEM;
        }
        return 0;
}

static int open_directory(const char *path, mode_t mode, int *ret, Fault *reterr) {
        int r;

        r = mkdir_parents(path, mode);
        if (r >= 0) {
                *ret = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                r = *ret < 0 ? -errno : 0;
        }
        return r < 0 ? fault_set_errno(reterr, r, "Failed to make directory '%s'", path) : 0;
}

static int make_directory(int parent_fd, const char *name, mode_t mode, Fault *reterr) {
        _cleanup_close_ int fd = open_dir_at(parent_fd, name, /* create= */ true, mode);

        return fd < 0 ? fault_set_errno(reterr, fd, "Failed to make directory '%s'", name) : 0;
}

static int make_directories(Manager *m, Fault *reterr) {
        static const struct {
                const char *name;
                mode_t mode;
        } state_dirs[] = {
                { "capsules", 0700 }, { "templates", 0700 }, { "kernels", 0700 }, { "trash", 0700 }
        };
        int r;

        r = open_directory(m->state_dir, 0700, &m->state_fd, reterr);
        if (r >= 0)
                r = open_directory(m->run_dir, 0755, &m->run_fd, reterr);
        for (size_t i = 0; i < ELEMENTSOF(state_dirs) && r >= 0; i++)
                r = make_directory(m->state_fd, state_dirs[i].name, state_dirs[i].mode, reterr);
        if (r >= 0)
                r = make_directory(m->run_fd, "capsules", 0700, reterr);
        return r;
}

/* One wrennd a run directory; the lock ends with the process. */
static int take_lock(Manager *m, Fault *reterr) {
        m->lock_fd = openat(m->run_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (m->lock_fd < 0)
                return fault_set_errno(reterr, errno, "Failed to open '%s/lock'", m->run_dir);
        if (flock(m->lock_fd, LOCK_EX | LOCK_NB) < 0)
                return fault_set(reterr, FAULT_INVALID_STATE,
                                 "Another wrennd runs already ('%s/lock' is locked).", m->run_dir);
        return 0;
}

static int read_boot_id(Manager *m) {
        _cleanup_free_ char *text = NULL;
        size_t n = 0;
        int r;

        r = read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", BOOT_ID_FILE_MAX, &text, NULL);
        if (r < 0)
                return r;
        for (const char *p = text; *p && n < sizeof(m->boot_id) - 1; p++)
                if (*p != '-' && *p != '\n')
                        m->boot_id[n++] = *p;
        m->boot_id[n] = 0;
        return 0;
}

static int open_store(Manager *m, Fault *reterr) {
        _cleanup_free_ char *path = strjoin(m->state_dir, "/wrenn.db");

        return path ? store_open(path, &m->store, reterr) : -ENOMEM;
}

static int set_up(Manager *m, const ManagerPaths *paths, Fault *reterr) {
        int r;

        r = set_paths(m, paths);
        if (r >= 0)
                r = make_tables(m);
        if (r >= 0)
                r = read_boot_id(m);
        if (r >= 0)
                r = make_directories(m, reterr);
        if (r >= 0)
                r = take_lock(m, reterr);
        if (r >= 0)
                r = open_store(m, reterr);
        if (r >= 0)
                r = uid_pool_new(m->config.uid_first, m->config.uid_last, &m->uids);
        if (r >= 0)
                r = layer_cache_new(m, &m->layers);
        if (r >= 0)
                r = vmm_probe_new(m, &m->vmm);
        if (r >= 0)
                r = trash_new(m->event, m->state_fd, &m->trash);
        if (r >= 0)
                r = manager_load_templates(m, reterr);
        if (r >= 0)
                r = manager_load_keys(m, reterr);
        return r;
}

int manager_new(sd_event *e, Config *config, const ManagerPaths *paths, Manager **ret, Fault *reterr) {
        _cleanup_(manager_freep) Manager *m = malloc(sizeof(Manager));
        int r;

        if (!m)
                return -ENOMEM;

        *m = (Manager) {
                .event = sd_event_ref(e),
                .config = *config,
                .state_fd = -EBADF,
                .run_fd = -EBADF,
                .lock_fd = -EBADF,
        };
        *config = (Config) {};

        r = set_up(m, paths, reterr);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(m);
        return 0;
}

/* The order matters: capsules hold templates, templates may free rows of the store. */
Manager* manager_free(Manager *m) {
        if (!m)
                return NULL;

        m->events = NULL;
        m->sweep_timer = event_source_free(m->sweep_timer);
        manager_adopt_cancel(m);
        manager_free_jobs(m);
        manager_free_capsules(m);
        manager_free_keys(m);
        manager_free_templates(m);
        m->slots = slot_pool_free(m->slots);
        m->uids = uid_pool_free(m->uids);
        m->layers = layer_cache_free(m->layers);
        m->vmm = vmm_probe_free(m->vmm);
        m->trash = trash_free(m->trash);
        m->store = store_close(m->store);

        hashmap_free(m->capsules);
        hashmap_free(m->templates);
        hashmap_free(m->templates_by_id);
        hashmap_free(m->keys);
        hashmap_free(m->keys_by_hash);
        hashmap_free(m->jobs);
        config_done(&m->config);
        close_fd(m->state_fd);
        close_fd(m->run_fd);
        close_fd(m->lock_fd);
        free(m->state_dir);
        free(m->run_dir);
        free(m->cache_dir);
        free(m->lib_dir);
        event_source_free(m->status_source);
        sd_event_unref(m->event);
        free(m);
        return NULL;
}

void manager_set_events(Manager *m, const ManagerEvents *events, void *userdata) {
        m->events = events;
        m->events_userdata = userdata;
}

int manager_reload(Manager *m, Fault *reterr) {
        Config config;
        static const char *const properties[] = { "Backends",        "Isolation", "MemoryBudget",
                                                  "DefaultTemplate", "Limits",    NULL };
        int r;

        r = config_load(NULL, &config, reterr);
        if (r < 0)
                return r;

        config_done(&m->config);
        m->config = config;
        vmm_probe_refresh(m->vmm);
        log_info("The configuration was read again.");
        manager_event(m, manager_changed, m, properties);
        return 0;
}

/* For systemctl status; not at once, but when the loop has nothing better to do. */
static int on_status(sd_event_source *source, void *userdata) {
        char reserved[FORMAT_SIZE_LEN], budget[FORMAT_SIZE_LEN];
        Manager *m = userdata;

        (void) sd_notifyf(/* unset_environment= */ false,
                          "STATUS=%u capsules, %u running; %s of %s reserved", m->n_capsules, m->n_running,
                          format_size(reserved, m->memory_reserved),
                          format_size(budget, m->config.memory_budget_bytes));
        return 0;
}

void manager_changed(Manager *m) {
        static const char *const properties[] = { "NCapsules", "NRunning", "VCPUsReserved", "MemoryReserved",
                                                  NULL };

        manager_event(m, manager_changed, m, properties);
        (void) event_defer(m->event, &m->status_source, PRIORITY_GC, on_status, m);
}
