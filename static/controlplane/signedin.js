/** Tells this person's other windows that they are signed in again, and closes this one, if it may. */

new BroadcastChannel("desktopctl:signedin").postMessage("");
window.close();
