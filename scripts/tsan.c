/* What ThreadSanitizer cannot see, because std is not instrumented, told by name.
 *
 * A list of suppressions would have to name Arc, and every function that runs under a lock, and
 * would hide the races in them. This hides none: each function below only says what the
 * standard library's documentation promises of the call that it stands in for, and says so of the
 * one object that the call is about. The linker puts them in the place of the originals (--wrap);
 * scripts/ci.sh passes the names, which depend on the compiler's version.
 */

void __tsan_acquire(void *address);
void __tsan_release(void *address);

/* The compiler's memory orders, as the runtime of the sanitizer numbers them. */
enum { RELEASE = 3, ACQUIRE_AND_RELEASE = 4 };

/* `Arc` counts down with Release, and whoever comes to zero makes an Acquire fence before it frees.
 * The sanitizer knows no fences. An Acquire with each step down is seen, and is the same thing for
 * the last one. So a count of our own that forgets its Acquire is not found here: the models are
 * there for that (loom_). */
unsigned long __real___tsan_atomic64_fetch_sub(volatile unsigned long *, unsigned long, int);

unsigned long __wrap___tsan_atomic64_fetch_sub(volatile unsigned long *place, unsigned long count,
                                               int order) {
    return __real___tsan_atomic64_fetch_sub(place, count,
                                            order == RELEASE ? ACQUIRE_AND_RELEASE : order);
}

#define JOIN_NAMES(a, b) a##b
#define JOIN(a, b) JOIN_NAMES(a, b)

/* `Mutex::lock`: an uncontended lock is taken in our code, and seen; a contended one in std. */
void JOIN(__real_, LOCK_CONTENDED)(void *mutex);

void JOIN(__wrap_, LOCK_CONTENDED)(void *mutex) {
    JOIN(__real_, LOCK_CONTENDED)(mutex);
    __tsan_acquire(mutex);
}

/* `Condvar::wait`: std gives the mutex back, sleeps, and takes it again. */
void JOIN(__real_, CONDVAR_WAIT)(void *condvar, void *mutex);

void JOIN(__wrap_, CONDVAR_WAIT)(void *condvar, void *mutex) {
    __tsan_release(mutex);
    JOIN(__real_, CONDVAR_WAIT)(condvar, mutex);
    __tsan_acquire(mutex);
}

/* `Condvar::wait_timeout`, likewise. A `Duration` is passed as its two numbers. */
_Bool JOIN(__real_, CONDVAR_WAIT_TIMEOUT)(void *, void *, unsigned long, unsigned);

_Bool JOIN(__wrap_, CONDVAR_WAIT_TIMEOUT)(void *condvar, void *mutex, unsigned long seconds,
                                          unsigned nanoseconds) {
    __tsan_release(mutex);
    _Bool woken = JOIN(__real_, CONDVAR_WAIT_TIMEOUT)(condvar, mutex, seconds, nanoseconds);
    __tsan_acquire(mutex);
    return woken;
}
