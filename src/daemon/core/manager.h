/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What wrennd is: the loop, the configuration, the tables of all nouns and the handles of the host layer.
 * Each noun has a file of its own (capsule.c, template.c, key.c, job.c) with functions that take the
 * Manager; nothing here knows D-Bus. What the front end must hear is told through ManagerEvents.
 */

#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "basic/hashmap.h"
#include "basic/macro.h"
#include "daemon/core/config-file.h"
#include "daemon/host/store.h"

typedef struct Capsule Capsule;
typedef struct Template Template;
typedef struct Key Key;
typedef struct Job Job;
typedef struct JobQueue JobQueue;
typedef struct Manager Manager;
typedef struct Systemd Systemd;
typedef struct SlotPool SlotPool;
typedef struct UidPool UidPool;
typedef struct LayerCache LayerCache;
typedef struct VmmProbe VmmProbe;
typedef struct Trash Trash;
typedef struct Adoption Adoption;

/*
 * Upwards calls; every one is optional. properties: NULL-terminated D-Bus property names. They run at once,
 * while the caller is at work: they may read the object and change nothing.
 */
typedef struct ManagerEvents {
        void (*capsule_new)(Capsule *c, void *userdata);
        void (*capsule_changed)(Capsule *c, const char *const *properties, void *userdata);
        /* reached stopped or error */
        void (*capsule_removed)(Capsule *c, const char *reason, void *userdata);
        /* the record is forgotten */
        void (*capsule_freed)(Capsule *c, void *userdata);
        void (*process_exited)(Capsule *c, uint32_t pid, const char *tag, int code, const char *reason,
                               void *userdata);
        void (*template_new)(Template *t, void *userdata);
        void (*template_changed)(Template *t, const char *const *properties, void *userdata);
        void (*template_removed)(Template *t, void *userdata);
        void (*job_new)(Job *j, void *userdata);
        void (*job_changed)(Job *j, const char *const *properties, void *userdata);
        void (*job_log)(Job *j, int priority, const char *line, void *userdata);
        void (*job_removed)(Job *j, const char *result, const char *message, void *userdata);
        void (*key_revoked)(const char *key_id, void *userdata);
        void (*manager_changed)(Manager *m, const char *const *properties, void *userdata);
} ManagerEvents;

/* Calls one of them when somebody listens. */
#define manager_event(m, event, ...)                                           \
        do {                                                                   \
                if ((m)->events && (m)->events->event)                         \
                        (m)->events->event(__VA_ARGS__, (m)->events_userdata); \
        } while (0)

struct Manager {
        sd_event *event;
        Config config;
        Store *store;
        Systemd *systemd;            /* weak: main()'s; NULL until the bus is there */
        const ManagerEvents *events; /* borrowed: static */
        void *events_userdata;

        /* keys are borrowed from the values */
        Hashmap *capsules;        /* id -> Capsule, also stopped ones */
        Hashmap *templates;       /* name -> Template, visible ones */
        Hashmap *templates_by_id; /* id -> Template, also hidden ones */
        Hashmap *keys;            /* id -> Key */
        Hashmap *keys_by_hash;    /* hex sha256 -> Key */
        Hashmap *jobs;            /* "<n>" -> Job */
        JobQueue *job_queue;      /* which of them runs */
        uint32_t last_job_id;

        SlotPool *slots;
        UidPool *uids;
        LayerCache *layers;
        VmmProbe *vmm; /* which accelerators and programs are usable */
        Trash *trash;
        Adoption *adoption; /* while starting up */
        sd_event_source *sweep_timer, *status_source;

        /* sums over living capsules */
        uint32_t n_capsules, n_running, vcpus_reserved;
        uint64_t memory_reserved;
        unsigned n_listings; /* lists of capsules' files and processes being made */

        /* owned; STATEDIR, RUNDIR, CACHEDIR, PKGLIBDIR but in tests */
        char *state_dir, *run_dir, *cache_dir, *lib_dir;
        int state_fd, run_fd; /* the directories */
        int lock_fd;
        char boot_id[33];
        bool stopping; /* no new work */
};

/* Directories to work in; NULL members: the built-in ones. */
typedef struct ManagerPaths {
        const char *state_dir, *run_dir, *cache_dir, *lib_dir;
} ManagerPaths;

/*
 * Makes the directories, opens the database and loads templates and keys from it. Takes no other daemon's
 * place: the lock in the run directory must be free (-EBUSY). config is moved from.
 */
int manager_new(sd_event *e, Config *config, const ManagerPaths *paths, Manager **ret, Fault *reterr);
/* Capsules run on. */
Manager* manager_free(Manager *m);
DEFINE_CLEANUP(Manager, manager_free)

/* Who hears of changes; NULL: nobody. events are borrowed. */
void manager_set_events(Manager *m, const ManagerEvents *events, void *userdata);

/* Reads the configuration again. What is alive keeps its limits. */
int manager_reload(Manager *m, Fault *reterr);

/* Tells the front end and PID 1 (STATUS=) that the figures changed. */
void manager_changed(Manager *m);

/* Nouns that other files load at start-up; each logs and skips what it cannot read. */
int manager_load_templates(Manager *m, Fault *reterr);
int manager_load_keys(Manager *m, Fault *reterr);
