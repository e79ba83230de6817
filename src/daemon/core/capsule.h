/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A capsule: its record, its state, and the handles of what the kernel and PID 1 hold for it. Life
 * (architecture §5):
 *
 *      pending → starting → running → stopping → stopped        error from any of the first three
 *
 * One flow at a time works on it: CapsuleStart (capsule-start.c) or CapsuleStop (capsule-stop.c), which
 * pre-empts the other. Stopped and failed ones stay in the table until CAPSULES_STOPPED_MAX younger ones
 * ended.
 */

#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "basic/limits.h"
#include "basic/macro.h"
#include "daemon/core/config-file.h"
#include "shared/protocol.h"

typedef struct Manager Manager;
typedef struct Template Template;
typedef struct Slot Slot;
typedef struct MonitorLink MonitorLink;
typedef struct Capsule Capsule;
typedef struct CapsuleStart CapsuleStart;
typedef struct CapsuleStop CapsuleStop;
typedef struct CapsuleWaiter CapsuleWaiter;

typedef enum CapsuleState {
        CAPSULE_PENDING,
        CAPSULE_STARTING,
        CAPSULE_RUNNING,
        CAPSULE_PAUSING,
        CAPSULE_PAUSED,
        CAPSULE_RESUMING,
        CAPSULE_STOPPING,
        CAPSULE_STOPPED,
        CAPSULE_ERROR,
        _CAPSULE_STATE_MAX,
        _CAPSULE_STATE_INVALID = -EINVAL,
} CapsuleState;

/* What a verb needs: a bit a state. */
#define STATE_BIT(s)       (1U << (s))
#define CAPSULE_ENDED_BITS (STATE_BIT(CAPSULE_STOPPED) | STATE_BIT(CAPSULE_ERROR))

/* What was asked for. Moved from on success; capsule_spec_done() empties it. */
typedef struct CapsuleSpec {
        char *template; /* NULL or "": the configuration's */
        char *name;     /* "" or a label for people */
        char *team;     /* NULL: "default" */
        char *key_id;   /* NULL: none */
        uid_t owner_uid;
        uint32_t vcpus; /* 0: the template's or the configuration's, as the next two */
        uint64_t memory_bytes;
        uint64_t disk_bytes;
        uint64_t timeout_usec; /* 0: never */
        char **labels;         /* "NAME=value" */
        char **env;            /* "NAME=value"; forgotten once the guest has it */
} CapsuleSpec;
void capsule_spec_done(CapsuleSpec *s);

/* r: 0, or a negative errno with fault. Runs once, from the event loop; c is borrowed. */
typedef void (*CapsuleDone)(Capsule *c, int r, const Fault *fault, void *userdata);

struct Capsule {
        unsigned n_ref;
        Manager *manager; /* weak: outlives us */
        char id[64];
        char *unit;         /* wrenn-<id>.scope */
        CapsuleSpec spec;   /* effective values */
        Template *template; /* a reference while alive; NULL afterwards */
        char *template_id;

        CapsuleState state;
        EndReason reason;
        char *message;           /* one sentence of what went wrong, or NULL */
        Accelerator accelerator; /* KVM or TCG, chosen at create */
        char *boot_id;           /* of the host, when it was started */
        uint64_t created_usec, started_usec, active_usec, updated_usec; /* CLOCK_REALTIME */

        bool reserved; /* counted in the Manager's sums */
        uint64_t reserved_bytes;
        uid_t uid;           /* 0: none */
        unsigned slot_index; /* 0: none */
        Slot *slot;
        char *address;

        pid_t monitor_pid, vmm_pid; /* 0: none or not known */
        int monitor_pidfd, vmm_pidfd;
        int monitor_status; /* as of waitpid, once it ended and was our child; else -1 */
        sd_event_source *monitor_source, *vmm_source;
        bool scope_exists; /* PID 1 was asked for it */
        MonitorLink *link;
        char *agent_version;
        bool active_told; /* LastActiveTimestamp was told less than a second ago */
        sd_event_source *active_timer;

        struct CapsuleRequest *requests;   /* calls that wait for the monitor */
        struct CapsuleTransfer *transfers; /* under way */
        CapsuleStart *start;
        CapsuleStop *stop;
        CapsuleWaiter *create_waiters, *stop_waiters;
        int start_result; /* of a start that failed, for create_waiters once it is undone */
        Fault start_fault;
        char *end_status;     /* the VMM's, as the monitor told it */
        EndReason end_told;   /* likewise */
        EndReason end_wanted; /* asked for politely, not ended yet */
};

const char* capsule_state_to_string(CapsuleState s);
CapsuleState capsule_state_from_string(const char *s);

Capsule* capsule_ref(Capsule *c);
Capsule* capsule_unref(Capsule *c);
DEFINE_CLEANUP(Capsule, capsule_unref)

/*
 * Checks, admits, records and begins to start a capsule. done (NULL: nobody waits) runs when it is running
 * or has failed. *ret is borrowed and set on success. -EINVAL, -ENOENT (no such template), -EAGAIN
 * (FAULT_NO_CAPACITY), -ENODEV (FAULT_NO_KVM), -EHOSTDOWN…
 */
int capsule_create(Manager *m, CapsuleSpec *spec, CapsuleDone done, void *userdata, Capsule **ret,
                   Fault *reterr);

/*
 * Ends it and removes all it has, from every state; done runs when nothing is left. reason: why, unless it
 * ends already. 1: there was nothing to do, done will not run. 0: under way. -EAGAIN: too many wait already;
 * done will not run.
 */
int capsule_destroy(Capsule *c, EndReason reason, CapsuleDone done, void *userdata, Fault *reterr);

/*
 * Asks the guest to power off, and ends it the hard way when it has not within StopTimeoutSec=. One that
 * does not run is destroyed at once. Errors as capsule_destroy().
 */
int capsule_poweroff(Capsule *c, EndReason reason, Fault *reterr);

/* Marks activity of now. FAULT_INVALID_STATE unless running. */
int capsule_ping(Capsule *c, Fault *reterr);

/* The capsule of that id, as far as the team may see it (NULL: an administrator, all). Borrowed, or NULL
 * with reterr set. */
Capsule* manager_find_capsule(Manager *m, const char *id, const char *team, Fault *reterr);
/* The one whose scope has that name, or NULL. */
Capsule* manager_find_capsule_by_unit(Manager *m, const char *unit);

typedef struct ExecSpec {
        char **argv; /* of a terminal also empty: the user's login shell */
        char **env;
        char *cwd, *user, *tag; /* NULL: default */
        uint64_t timeout_usec;  /* 0: MaxExecSec=; of a terminal: none */
        bool want_stdin;
        bool pty;
        uint32_t cols, rows;
} ExecSpec;
void exec_spec_done(ExecSpec *s);

/* What a caller gets of a process; the fds are borrowed, duplicates are the callee's. */
typedef struct ExecStarted {
        uint32_t pid;
        const char *tag;
        bool pty;
        /* stdin (one end of a closed pipe when not wanted), stdout, stderr; of a terminal its socket first,
         * then ends of closed pipes */
        int fds[3];
} ExecStarted;

/* started: NULL with a fault. */
typedef void (*ExecDone)(Capsule *c, int r, const ExecStarted *started, const Fault *fault, void *userdata);
/* Starts a process in the guest. done as in style.md §7; the end of the process comes as
 * ManagerEvents.process_exited. */
int capsule_exec(Capsule *c, const ExecSpec *spec, ExecDone done, void *userdata, Fault *reterr);
/* The same for one that runs or ended lately, by its tag or pid: the tail kept, then what follows. */
int capsule_attach(Capsule *c, const char *selector, ExecDone done, void *userdata, Fault *reterr);
/* fd of an HTTP/2 connection to the agent, owned by the caller. */
int capsule_open_channel(Capsule *c, int *ret_fd, Fault *reterr);
typedef void (*ConsoleDone)(Capsule *c, int r, int fd, const Fault *fault, void *userdata);
int capsule_open_console(Capsule *c, ConsoleDone done, void *userdata, Fault *reterr);

/* Fails all that wait for its monitor, and what is being transferred. */
void capsule_fail_requests(Capsule *c);

/* Figures read from the kernel when asked; 0 when unknown. */
uint64_t capsule_memory_current(const Capsule *c);
uint64_t capsule_disk_usage(const Capsule *c);
const char* capsule_isolation(const Capsule *c); /* "hardware" or "emulated" */

/* Frees all, at the end of the program. They run on. */
void manager_free_capsules(Manager *m);

/* --- for capsule*.c and adopt.c -------------------------------------------------------------- */

/* A capsule with an id, not yet in the table. spec is moved from on success. id: NULL makes a new one. */
int capsule_new(Manager *m, const char *id, CapsuleSpec *spec, Capsule **ret);
/* Puts it into the table, which takes a reference of its own. */
int capsule_register(Capsule *c);
/* Takes it out of table and database. */
void capsule_forget(Capsule *c);
/* Writes the record; failures of a write that need not be durable are logged only. */
int capsule_save(Capsule *c, bool durable, Fault *reterr);

/* Sets and tells the state. */
void capsule_set_state(Capsule *c, CapsuleState state);
void capsule_tell(Capsule *c, const char *const *properties);
#define capsule_tell_one(c, ...) capsule_tell((c), (const char *const[]) { __VA_ARGS__, NULL })
void capsule_set_message(Capsule *c, const char *message);
void capsule_touch(Capsule *c, uint64_t realtime_usec);

/* Adds to and takes from the Manager's sums. */
int capsule_reserve(Capsule *c, Fault *reterr);
/* Without asking whether there is room: it runs already. */
void capsule_reserve_always(Capsule *c);
void capsule_unreserve(Capsule *c);
/* Slot, uid, template, memory: once no process of it is alive. */
void capsule_give_back(Capsule *c);

/* Watches the monitor's and the VMM's end. pid: of a process that is known to live. */
int capsule_watch_monitor(Capsule *c, pid_t pid);
int capsule_watch_vmm(Capsule *c, pid_t pid);
void capsule_unwatch(Capsule *c);
bool capsule_processes_dead(const Capsule *c);

/* Makes or opens the monitor's connection; -errno. */
int capsule_connect(Capsule *c);

/* The start flow. begin: c has its record. cancel: undone, nothing of it runs afterwards; create waiters
 * fail with the fault. */
int capsule_start_begin(Capsule *c, Fault *reterr);
/* Goes on with a start whose VMM was running when wrennd was restarted. ready: the agent answered meanwhile.
 */
int capsule_start_resume(Capsule *c, bool ready);
void capsule_start_cancel(Capsule *c);
void capsule_start_on_ready(Capsule *c, uint64_t boot_usec);
void capsule_start_on_process_end(Capsule *c);

/* The stop flow, idempotent. error: the end state is "error", with c->message. */
int capsule_stop_begin(Capsule *c, EndReason reason, bool error);
void capsule_stop_free(Capsule *c);
void capsule_stop_on_process_end(Capsule *c);

/* Somebody who waits for the end of a flow. */
int capsule_add_create_waiter(Capsule *c, CapsuleDone done, void *userdata, Fault *reterr);
int capsule_add_stop_waiter(Capsule *c, CapsuleDone done, void *userdata, Fault *reterr);
void capsule_remove_stop_waiter(Capsule *c, void *userdata);
void capsule_finish_create(Capsule *c, int r, const Fault *fault);
void capsule_finish_stop(Capsule *c);

/* An end that nobody asked for: finds the reason and begins to stop. */
void capsule_on_unexpected_end(Capsule *c);
/* What the monitor left in its exit file, as by capsule_on_exited(); -ENOENT, -ENODATA. */
int capsule_read_exit(Capsule *c);
/* Events of its monitor. */
void capsule_on_exited(Capsule *c, const char *reason, const char *status, const char *message);

/* Keeps the number of ended ones in bounds. */
void manager_prune_capsules(Manager *m);

/* Paths below the Manager's directories; NULL on out of memory. */
char* capsule_run_path(const Capsule *c, const char *name);
char* capsule_state_path(const Capsule *c, const char *name);
char* capsule_slice(const Capsule *c);
