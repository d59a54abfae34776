"""Reports: turn outcomes into text for people (`text`) or machines (`machine`). Nothing here knows where it
is printed."""
