"""Channel: a mail through an SMTP server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Literal

from fazai.compat.timeouts import deadline
from fazai.files import read_token_file
from fazai.masking import make_mask
from fazai.notify.contexts import certificate_problem, make_context
from fazai.notify.message import DeliveryError, Notice, make_line
from fazai.timestamps import timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpChannel:
    """A mail server and whom it is to send to. `tls`: `starttls` (without it nothing is sent), `tls` from the
    first byte, or `none`. With a `user` the one line of `password_file` is the password."""

    name: str
    host: str
    sender: str
    recipients: tuple[str, ...]
    port: int = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_file: Path | None = None
    ca: Path | None = None
    timeout_s: float = 30.0

    async def send(self, notice: Notice) -> str | None:
        """Send a mail; it is the server's once this returns. Return whom of several the server refused.
        Raises DeliveryError, SecretError."""
        import aiosmtplib

        password = None
        if self.user is not None and self.password_file is not None:
            password = read_token_file(self.password_file, "file with the password of the mail server")
        context = make_context(self.ca) if self.tls != "none" else None
        client = aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            timeout=self.timeout_s,
            use_tls=self.tls == "tls",
            start_tls=self.tls == "starttls",
            tls_context=context,
        )
        mask = make_mask([password] if password else [])
        try:
            async with deadline(self.timeout_s):
                await client.connect()
                if password is not None and self.user is not None:
                    await client.login(self.user, password)
                refused, _ = await client.sendmail(
                    self.sender, list(self.recipients), self._mail(notice).as_bytes()
                )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise _delivery_error(error, mask) from None
        finally:
            client.close()
        return f"the mail server refused {', '.join(map(make_line, refused))}" if refused else None

    def _mail(self, notice: Notice) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = f"[fazai] {make_line(notice.subject, 150)}"
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.recipients)
        mail["Date"] = format_datetime(timestamp(notice.time))
        mail["Message-ID"] = f"<{notice.id}@fazai>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Fazai-Kind"] = notice.kind
        if notice.urgent:
            mail["Importance"] = "high"
        mail.set_content(notice.text + "\n")
        return mail


def _delivery_error(error: Exception, mask: Callable[[str], str]) -> DeliveryError:
    import aiosmtplib

    problem = certificate_problem(error)
    if problem is not None:
        return DeliveryError(problem)
    if isinstance(error, TimeoutError | aiosmtplib.SMTPTimeoutError):
        return DeliveryError("the mail server does not answer in time")
    said = list(error.recipients) if isinstance(error, aiosmtplib.SMTPRecipientsRefused) else [error]
    codes = [one.code for one in said if isinstance(one, aiosmtplib.SMTPResponseException)]
    text = str(error) or type(error).__name__
    if codes and isinstance(said[0], aiosmtplib.SMTPResponseException):
        text = f"{codes[0]} {said[0].message}"
    permanent = bool(codes) and all(500 <= code < 600 for code in codes)
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        permanent = False  # the password's file is read at each attempt
    text = make_line(mask(text), 300)
    return DeliveryError(f"the mail server did not take it: {text}", permanent=permanent)
